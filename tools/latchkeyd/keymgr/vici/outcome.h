// Why a negotiation failed, from what charon logs of it (control-log) and its last word (errmsg).
// Pure. The texts are those of strongSwan 5.9.8 to 6.0; each is matched from the beginning of its
// line, so no name that a peer gives itself, which stands within a line, can pass for one.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_OUTCOME_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_OUTCOME_H_

#include <string>
#include <string_view>

#include "policy/model/error.h"
#include "tools/latchkeyd/keymgr/vici/sas.h"

namespace latchkey::broker::vici {

// One line for people: control characters replaced, cut to 200 octets with "..." at the end.
std::string Quoted(std::string_view text);

// True for charon's line that it gives an IKE_SA up because its peer does not answer: after
// retransmits, probing of paths, or IKEv1's dead peer detection.
bool SaysPeerDead(const LogLine& line);

// Gathers the lines of one negotiation and judges it.
class Outcome {
 public:
  void Hear(const LogLine& line);

  // The reason and the decisive line (or `errmsg`, where none was): peer-mismatch before
  // auth-failed before no-proposal before no-child before acquire-timeout before no-sa; among the
  // same, the first.
  Error Judge(std::string_view errmsg) const;

 private:
  int rank_ = 0;  // 0: nothing decisive yet
  Reason reason_ = Reason::kNoSa;
  std::string line_;
};

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_OUTCOME_H_
