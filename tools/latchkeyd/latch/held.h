// Small pieces of what an unconnected UDP socket is held by, that need no state of the engine.
#ifndef TOOLS_LATCHKEYD_LATCH_HELD_H_
#define TOOLS_LATCHKEYD_LATCH_HELD_H_

#include <cstdint>
#include <vector>

#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

// Returns the prefix of one address.
Prefix Host(const Address& address);

// Returns the outgoing entry for what a socket of this port sends from `source` to `remote` (port
// 0: any), but for its action.
Guard DatagramGuard(const Prefix& source, uint16_t port, const SocketAddress& remote,
                    uint32_t mark);

// The last that the kernel asks of all entries: whatever else the SPD says counts.
inline constexpr uint32_t kProofPriority = 0xffffffff;

// Returns the incoming entry that makes a tag the proof of its SA. A packet's mark can come from a
// firewall too, which keeps that of one packet for the others of a flow (CONNMARK); so the kernel
// is to let in what bears the tag of an SA, and is a datagram between its two ends, only where it
// came under an SA of this reqid. All else that comes from there, or bears no tag, meets it not:
// what was inside GRE or L2TP keeps the mark and loses what says that it was protected, but has
// other addresses; and to have such entries for each bit of the mask, instead of each SA, would
// drop what others mark for reasons of their own.
Guard TagProof(const Sa& sa, uint32_t tag, uint32_t mask);

// True when packets of sockets bound to both can meet one SPD entry.
bool SharePlace(const SocketAddress& a, const SocketAddress& b);

// What the rules say of datagrams from there (port 0: whatever their port).
DatagramRegion::Need NeedAt(const Held& held, const SocketAddress& remote);

// True where what becomes of a datagram depends on the other end's port.
bool PortsMatter(const Held& held, const Address& address);

// True when the rule that decided is about datagrams that come in (too).
bool IsIncoming(const policy::Verdict& verdict);

// How many peers its program asked about.
size_t CountAsked(const Held& held);

// What the filter is to let in by where it comes from: by the rules, and from whom the program was
// let send to.
std::vector<DatagramRegion> RegionsOf(const Held& held);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_HELD_H_
