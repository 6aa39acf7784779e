// What is done to a UDP socket before and after its latch: nothing that was received, or kept back,
// under another one may be taken for the peer's.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAMS_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAMS_H_

#include <cstdint>

#include "policy/model/error.h"
#include "policy/model/flow.h"

namespace latchkey::broker {

// Implements KernelPort::PushOut().
void PushOutDatagrams(int fd);

// Implements KernelPort::Drain(): receives, without waiting, until there is no more, or as many
// datagrams as the receive buffer can hold at once: then all that was there at the beginning is
// gone. What ICMP reported, and the socket's pending error, go too.
void DrainDatagrams(int fd);

// Implements KernelPort::ConnectDatagrams().
void ConnectAndDrain(int fd, bool v6_socket, const SocketAddress& remote, uint32_t scope);

// Ends the calls that wait on a UDP socket without SOCK_DESTROY: shut down both ways. It stays
// connected, and its policies stay; it serves no more (Linux has no way back).
Result<void> ShutDownDatagrams(int fd);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAMS_H_
