// Small pieces of the engine that need no state of it: choosing an SA pair, blocking a socket,
// describing what decided.
#ifndef TOOLS_LATCHKEYD_LATCH_PROTECT_H_
#define TOOLS_LATCHKEYD_LATCH_PROTECT_H_

#include <string>
#include <vector>

#include "policy/decide.h"
#include "policy/policy.h"
#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/sa_table.h"

namespace latchkey::broker {

// The kernel's TCP states (include/net/tcp_states.h) that decisions look at.
inline constexpr uint8_t kTcpClose = 7;
inline constexpr uint8_t kTcpListen = 10;

// How long a connection that no latched listener took may have waited to be accepted: whoever had
// an SA with its peer since then may have filled its queue.
inline constexpr int64_t kImplicitQueueMs = 300'000;

struct SaPair {
  const KnownSa* out = nullptr;
  const KnownSa* in = nullptr;
};

// Chooses the SAs for a new latch from all those that can carry the flow (each list newest first).
// A latch is not made while SAs conflict (RFC 5660, 2.3): all of them must have one known
// identity, and one protection; then the pair must meet the demand. With a reqid in it, only SAs
// under that are chosen from, but the others still conflict. A unique demand is met by an SA of the
// flow's own only, and the wider ones conflict where they are of another peer, no more. Prefers the
// narrowest selector, then the newest.
Result<SaPair> ChoosePair(const std::vector<const KnownSa*>& out,
                          const std::vector<const KnownSa*>& in, const policy::Demand& demand);

// Returns between which addresses a latch's tunnel runs; of family kNone in transport mode.
TunnelEnds EndsOf(const Protection& protection, const Peering& peering);

// True when an SA runs between the same addresses as a latch's: in tunnel mode the kernel is told
// which.
bool SameEnds(const KnownSa& known, const Latch& latch);

// True when an SA that can carry a latch's flow contradicts it (RFC 5660, 2.3: another peer, or
// other parameters; mode and local identity too, since section 2 latches them).
bool Conflicts(const KnownSa& known, const Latch& latch);
// The part of it that is known even of an SA that is nobody's yet.
bool OtherProtection(const KnownSa& known, const Latch& latch);

// Lets nothing in or out of the socket any more. Failures are ignored: callers refuse anyway.
void Block(KernelPort& kernel, int fd, const SocketFacts& facts, Family family);

// Fills in whose the latch is and where its socket was seen.
void FillOwner(Entry& entry, const Client& client, const SocketFacts& facts, int fd_hint,
               KernelPort& kernel);

// Returns the outgoing SPD entry under which the kernel may answer for a latched flow without
// asking its socket (the ACKs of TIME_WAIT above all, without which the peer's socket would linger
// for minutes): the marked, exact addresses, the server's port, the latch's reqid. The same for
// every connection to one server, and for a listener's children the same as their listener's; but
// `narrow`, for an SA of the flow's own, and for UDP, the flow's alone.
Guard FlowGuard(const Latch& latch, uint32_t mark, bool narrow = false);

// Returns the outgoing SPD entry that keeps the first packets of a non-blocking connect back: the
// server's address and port, whatever our own, and a reqid that no SA has.
Guard LarvalGuard(const SocketAddress& remote, uint8_t protocol, uint32_t reqid, uint32_t mark);

// True for an address of many, wherever: a group, or the broadcast address. No SA has one as its
// peer's. (Which ones are a link's the kernel knows: KernelPort::IsBroadcast().)
bool IsManys(const Address& address);

// Returns the families that a bound socket can speak.
std::vector<Family> FamiliesOf(const SocketFacts& facts);

// True for the reasons that say no more than that there is nobody to protect a flow with.
bool IsLack(Reason reason);

// Lets a socket send and take in `flow` in clear, whatever the SPD asks. As long as the socket has
// the guard bit all else that it sends is blocked.
Result<void> AllowClear(KernelPort& kernel, int fd, const SocketFacts& facts, const Flow& flow);

// Returns "rule NAME" or "default".
std::string DescribeRule(const policy::Rule* rule);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_PROTECT_H_
