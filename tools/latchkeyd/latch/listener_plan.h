// What a policy means for one listening socket: which peers need protection, and what that takes.
//
// Pure. A listener is "pure" when every peer must be protected or is refused: its IN socket policy
// can then demand ESP of everything. A "mixed" one also serves bypassed peers, and needs SPD
// entries by remote prefix instead. Regions never overlap, so that no entry depends on the order of
// another. Optional peers come in clear until there is an SA with them: then the engine adds an
// entry that asks for it, which stands before the plan's.
//
// Where peers must come by a tunnel, the plan lets nobody in: for each of their SAs the engine adds
// the entry that does, by its exact reqid. A socket policy, or an entry for all tunnels, would let
// one peer's tunnel carry packets with an address inside another's (sa_table.h).
#ifndef TOOLS_LATCHKEYD_LATCH_LISTENER_PLAN_H_
#define TOOLS_LATCHKEYD_LATCH_LISTENER_PLAN_H_

#include <vector>

#include "policy/grants.h"
#include "policy/policy.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

enum class Need : uint8_t { kProtect, kOptional, kBypass, kSystem, kDiscard };

// Priorities of SPD entries: what needs an SA comes before what lets optional peers by in clear,
// and that before the standing BLOCK.
inline constexpr uint32_t kOptionalPriority = 1;
inline constexpr uint32_t kTunnelPriority = 1;  // what keeps out who has no tunnel of those asked
inline constexpr uint32_t kStandingPriority = 2;

struct Region {
  Prefix remote;
  Need need = Need::kDiscard;
  SaProtocol protocol = SaProtocol::kEsp;  // kProtect, kOptional: under which
  Mode mode = Mode::kTransport;            // kProtect, kOptional: in which

  auto operator<=>(const Region&) const = default;
};

struct ListenerPlan {
  bool latched = false;  // some peer is, or may be, to be protected; or let in against the SPD
  bool pure = false;     // latched, nobody is bypassed, all by one protocol, in transport mode
  SaProtocol protocol = SaProtocol::kEsp;  // pure: that
  Mode mode = Mode::kTransport;            // pure: that
  Family socket_family = Family::kNone;    // pure: the family whose IN socket policy demands it
  std::vector<Guard> guards;               // SPD entries to hold while it listens

  bool operator==(const ListenerPlan&) const = default;
};

// Cuts the whole address space of `family` into regions by the rules that can match an incoming TCP
// flow to `local`; what no rule speaks of follows the default. Rules about remote ports are left
// out (accept refuses what they protect). An error (kUnsupported) for rules about local addresses
// when `local` is a wildcard, and for more than 512 regions.
Result<std::vector<Region>> CutRegions(const policy::Policy& policy, const SocketAddress& local,
                                       Family family);

// Plans for a socket bound to `local`. `families`: those it can speak. `spd`: as dumped, to find
// entries that would beat a guard (kConflictSpd) and to leave bypassed peers to the SPD, unless
// `grants` let them come in clear against it. kPolicyDiscard when no peer at all may connect.
Result<ListenerPlan> PlanListener(const policy::Policy& policy, const SocketAddress& local,
                                  const std::vector<Family>& families,
                                  const std::vector<SpdEntry>& spd, uint32_t guard_mark,
                                  policy::Grants grants = {});

// What lets the peers of a region come in clear, as far as they may.
struct Clear {
  std::vector<Guard> guards;
  bool against = false;  // the SPD, which asks for more
};

// `bound`: a local address and port of the region's family.
Clear LetClear(const SocketAddress& bound, const Region& region, const std::vector<SpdEntry>& spd,
               uint32_t guard_mark, const policy::Grants& grants, uint8_t protocol = kProtocolTcp);

// What a rule's action, or the default, means for whom it speaks of.
Need NeedOf(policy::Action action);

Prefix Everything(Family family);

// Returns the entry that keeps from a listener what does not come from `remote` under an SA.
Guard RequireIn(const SocketAddress& local, const Prefix& remote, SaProtocol protocol, Mode mode);

// True when a listener that holds `guards` takes nothing from `remote` but by entries of exact
// reqids.
bool ByReqid(const std::vector<Guard>& guards, const Address& remote);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_LISTENER_PLAN_H_
