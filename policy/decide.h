// The decision about one flow: pure, from the system's policy, the application's, who asks and the
// flow. RFC 5660, 3.1: an application may ask for more protection than the system's policy, and
// only a privileged one for less.
#ifndef POLICY_DECIDE_H_
#define POLICY_DECIDE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "policy/grants.h"
#include "policy/model/error.h"
#include "policy/policy.h"
#include "policy/system_policy.h"

namespace latchkey::policy {

struct Requester {
  uint32_t uid = ~0u;
  Grants grants;  // root in the broker's user namespace holds them all
  // Of the user alone, without what a signed policy brings: what a program's own request may use.
  Grants own = {};

  bool operator==(const Requester&) const = default;
};

enum class Outcome : uint8_t {
  kProtect,  // latch it, or refuse
  kBypass,   // leave it to the SPD, which asks nothing of it
  kClear,    // in clear, whatever the SPD asks: needs the permit
  kLocal,    // within the host: leave it alone
  kRefuse,
};

// Leave to send a flow in clear that could be protected, or that the system wants protected. Only
// Decide() makes one, so code that has one has asked.
class ClearPermit {
 private:
  ClearPermit() = default;
  friend struct Decision;
};

// What the SA of a flow must be.
struct Demand {
  AlgorithmSet algorithms;
  std::optional<Mode> mode;  // nothing: transport or tunnel
  bool replay = false;
  bool esn = false;
  bool unique = false;                 // only SAs whose selectors are the flow's 5-tuple
  std::vector<const PeerSpec*> peers;  // each must allow the peer; none: any authenticated peer
  Pin pin = Pin::kAuto;
  uint32_t reqid = 0;  // 0 = found
};

struct Verdict {
  Outcome outcome = Outcome::kRefuse;
  Reason reason = Reason::kPolicyDiscard;  // for kRefuse
  const Rule* rule = nullptr;              // what matched; null: the default. Lives as the policy.
  bool implicit = false;                   // kProtect: because the system asks, not the application
  Demand demand;                           // kProtect
  std::optional<ClearPermit> permit;  // kClear; kProtect: it may go in clear where there is no SA
  SystemAsk system;
};

// Decides about `flow`. A program's own request (application.floor) is decided with the user's own
// grants, and held to what its floor says of the flow: it may add to that, and take nothing away;
// where the floor leaves a flow to the system, the request is held to the system alone.
// `same_host`: the remote address is one of this host's own; such a flow is never protected: kLocal
// for outgoing ones unless a rule, the default or the system's file discards it; an incoming one is
// refused (local-peer) where a rule protects. A flow of kBoth is datagrams without a connection
// (FirstMatch): incoming where the rule that counts is the first for incoming ones. kBypass and
// kLocal leave the flow to the SPD, so neither can weaken it. Time grows with the number of rules
// and SPD entries.
Verdict Decide(const System& system, const Policy& application, const Requester& requester,
               const Flow& flow, bool same_host);

// Says how a verified SA answers a demand: kNone when it does, else peer-mismatch or
// weak-protection.
Reason Judge(const Demand& demand, const Identity& identity, const Protection& protection);

// The demand of a rule by itself, whatever the system asks.
Demand DemandOf(const Rule& rule);

// True when `id` is among the ids of `peer` (or it lists none) and `auth` among its auths. Ids
// compare as their kind says: host names and e-mail addresses without regard to case, "*" only as
// the whole leftmost label, for exactly one label; a prefix fqdn:, email:, dn:, ip:, keyid: fixes
// the kind.
bool PeerAllowed(const PeerSpec& peer, const Identity& identity);

}  // namespace latchkey::policy

#endif  // POLICY_DECIDE_H_
