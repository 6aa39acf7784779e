// What a policy means for one unconnected UDP socket: from where it may take what in, and whereto
// it may send without being asked about.
//
// Pure. A datagram is held to the first rule that covers it as an incoming flow of the socket's
// local port (direction "in" or "both"), and where none does to the first that covers it as an
// outgoing one. Regions of addresses do not overlap. Where what becomes of a datagram depends on
// the other end's port (or on which of our addresses it leaves from), the region takes nothing in
// and lets nothing out: the broker decides about each other end when the program sends to it.
#ifndef TOOLS_LATCHKEYD_LATCH_HOLD_PLAN_H_
#define TOOLS_LATCHKEYD_LATCH_HOLD_PLAN_H_

#include <vector>

#include "policy/grants.h"
#include "policy/policy.h"
#include "policy/system_policy.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

struct HoldPlan {
  bool held = false;  // some datagram is to be protected, or none is to move somewhere
  std::vector<DatagramRegion> regions;
  std::vector<Guard> guards;  // what leaves in clear, and comes in so against the SPD
  std::vector<Prefix> asked;  // where ports matter
};

// Plans for a socket bound to `local`. `families`: those it can speak. `system`: entries of the SPD
// that ask for more leave what they speak of to the SPD, unless `grants` let it pass against them;
// rules of the file make the broker decide about each other end. kPolicyDiscard when nothing at all
// may move. kUnsupported for incoming datagrams that go by "protect-or-bypass" or in tunnel mode,
// for rules about local addresses when `local` is a wildcard, and for more than 512 regions.
Result<HoldPlan> PlanHold(const policy::Policy& policy, const policy::System& system,
                          const SocketAddress& local, const std::vector<Family>& families,
                          uint32_t guard_mark, policy::Grants grants = {});

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_HOLD_PLAN_H_
