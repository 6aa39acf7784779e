// What a policy means for one unconnected UDP socket: from where it may take what in, and whereto
// it may send without being asked about.
//
// Pure. A datagram is held to the rule that policy::FirstMatch says counts, whoever began: what
// comes in has the first word, but where it would pass in clear and an outgoing one would not.
// Regions of addresses do not overlap. Where what becomes of a datagram depends on the other end's
// port (or on which of our addresses it leaves from), the region lets nothing out: the broker
// decides about each other end when the program sends to it. It takes nothing in either, unless a
// rule lets pass what comes from there: then of all but the ports that others speak of.
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
