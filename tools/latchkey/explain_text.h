// A decision in words: which system entry and which rule, what was asked, what is decided and why,
// which SA would serve it, and what to change where the answer is no.
#ifndef TOOLS_LATCHKEY_EXPLAIN_TEXT_H_
#define TOOLS_LATCHKEY_EXPLAIN_TEXT_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "policy/decide.h"
#include "tools/latchkey/explain_pad.h"
#include "tools/latchkeyd/keymgr/vici/choose.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::tool {

struct Explanation {
  Flow flow;
  policy::Verdict verdict;
  wire::Reason reason = wire::Reason::kNone;  // of the decision, or of the choice of an SA
  std::string detail;                         // why no SA was chosen
  std::optional<broker::KnownSa> sa;          // that would serve it now
  std::vector<PadName> pad;                   // who is behind it by the PAD; where SAs are not seen
  // Of IKE, that would be negotiated: there is no SA, and the flow waits for one.
  std::optional<broker::vici::Choice> child;
  // The rule that counts for a UDP socket without a connection, where it says something else.
  const policy::Rule* unconnected = nullptr;
  bool clear = false;  // optional protection, and no SA: in clear
};

// What the answer rests on.
struct Source {
  std::string policy;  // "": none
  std::string system;
  bool live = false;   // the SPD and SAD are the kernel's
  std::string broker;  // who said so, or why nobody did
  std::string pad;     // the PAD's file; "": it was not read
  policy::Requester requester;
};

// True when the flow would go through, protected or not.
bool Passes(const Explanation& answer);

std::string ExplainText(const Explanation& answer, const Source& source);
nlohmann::json ExplainJson(const Explanation& answer, const Source& source);

// Returns what to change so that a flow refused for `reason` would pass; "" where there is nothing
// to say.
std::string HintFor(wire::Reason reason);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_EXPLAIN_TEXT_H_
