// The system's policy: what /etc/latchkey/system.toml says for every application, together with the
// kernel's SPD. The stricter of the two holds.
#ifndef POLICY_SYSTEM_POLICY_H_
#define POLICY_SYSTEM_POLICY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "policy/algorithms.h"
#include "policy/grants.h"
#include "policy/model/flow.h"
#include "policy/policy.h"

namespace latchkey::policy {

// Who gets grants by who they are.
struct GrantTo {
  enum class Whom : uint8_t { kUser, kGroup, kEverybody };
  Whom whom = Whom::kEverybody;
  std::string name;  // or a number
  Grants grants;
};

// Whose signature brings grants with it.
struct Signer {
  std::string key;  // a minisign public key, base64
  Grants grants;
  std::vector<std::string> applications;  // empty: any
};

struct SystemPolicy {
  uint32_t mark_mask = 0xffff0000;
  bool fragments_dropped = false;  // fragments in clear, where tunnels run, by somebody else
  SuiteClasses suites;
  // Every rule that speaks of a flow counts, and the strictest holds; but a bypass rule is an
  // exception: where it speaks of a flow, the rules after it do not.
  std::vector<Rule> rules;
  std::vector<Signer> signers;
  std::vector<GrantTo> grants;
  OnBreak on_break = OnBreak::kReset;  // of implicit latches
};

// Both together, as a decision sees them.
struct System {
  const SystemPolicy& file;
  const std::vector<SpdEntry>& spd;
};

// What they ask of a flow.
struct SystemAsk {
  SystemAction action = SystemAction::kBypass;
  const SpdEntry* spd = nullptr;  // the SPD entry that asks most; null: none asks anything
  const Rule* rule = nullptr;     // the rule of the file that asks most; null: none
  // What an SA must be, by the rules and entries that protect (under kDiscard too, for whoever may
  // override that). Pointers live as the policy and the SPD do.
  AlgorithmSet algorithms;     // met or exceeded, by the site's classes
  Mode mode = Mode::kUnknown;  // kUnknown: any
  bool replay = false;
  bool esn = false;
  bool unique = false;  // an SA of the flow's own
  uint32_t reqid = 0;   // of the SPD entry's template; 0: any
  std::vector<const PeerSpec*> peers;
};

// Returns what the system asks of `flow`, in both its directions. Where a port or address of the
// flow is not known yet, what might come to count does, but an exception only where it is certain;
// and so it is with rules of one direction where nobody knows who began (kBoth, as in FirstMatch),
// but for exceptions that name the ports of servers.
SystemAsk AskSystem(const SystemPolicy& file, const std::vector<SpdEntry>& spd, const Flow& flow);

}  // namespace latchkey::policy

#endif  // POLICY_SYSTEM_POLICY_H_
