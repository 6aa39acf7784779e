// The decision about one flow: pure, from the application's policy and the system's.
#ifndef POLICY_DECIDE_H_
#define POLICY_DECIDE_H_

#include <cstdint>
#include <string>

#include "policy/model/error.h"
#include "policy/policy.h"

namespace latchkey::policy {

struct Requester {
  uint32_t uid = ~0u;
  bool root = false;  // root in the broker's user namespace holds every grant
};

enum class Outcome : uint8_t { kProtect, kBypass, kLocal, kRefuse };

struct Verdict {
  Outcome outcome = Outcome::kRefuse;
  Reason reason = Reason::kPolicyDiscard;  // for kRefuse
  const Rule* rule = nullptr;              // what matched; null: the default. Lives as the policy.
  uint32_t reqid = 0;                      // kProtect: asked for by the rule or the SPD; 0 = found
};

// Decides about `flow`. `same_host`: the remote address is one of this host's own. `system`: what
// the SPD asks of the flow. A flow on the same host is never protected: kLocal for outgoing ones
// unless a rule or the default discards it; an incoming one is refused (local-peer) where a rule
// protects, and kLocal where a rule bypasses or none speaks of it. kBypass and kLocal
// leave the flow to the SPD, so neither can weaken it.
Verdict Decide(const Policy& policy, const Requester& requester, const Flow& flow, bool same_host,
               const SystemView& system);

// Says how a verified SA answers a rule: kNone when it fits, else peer-mismatch or weak-protection.
Reason Judge(const Rule& rule, const Identity& identity, const Protection& protection);

// True when `id` is among the ids of `peer` (or it lists none) and `auth` among its auths. Ids
// compare as their kind says: host names and e-mail addresses without regard to case, "*" only as
// the whole leftmost label, for exactly one label; a prefix fqdn:, email:, dn:, ip:, keyid: fixes
// the kind.
bool PeerAllowed(const PeerSpec& peer, const Identity& identity);

}  // namespace latchkey::policy

#endif  // POLICY_DECIDE_H_
