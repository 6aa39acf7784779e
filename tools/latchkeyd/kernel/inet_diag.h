// The kernel's TCP and UDP sockets through sock_diag(7): list them, destroy one by its cookie.
#ifndef TOOLS_LATCHKEYD_KERNEL_INET_DIAG_H_
#define TOOLS_LATCHKEYD_KERNEL_INET_DIAG_H_

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "tools/latchkeyd/kernel/netlink_socket.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

class InetDiag {
 public:
  static Result<InetDiag> Open();

  // Implements KernelPort::LiveSockets(). The kernel loads tcp_diag and udp_diag by
  // itself.
  Result<std::vector<LiveSocket>> ListSockets();

  // Returns the cookies of all UDP sockets that have a port. Empty where the kernel cannot list
  // them.
  Result<std::unordered_set<uint64_t>> ListDatagramCookies();

  // Ends the socket with this cookie (SOCK_DESTROY; INET_DIAG_DESTROY in the kernel's
  // configuration). Its addresses are tried first, then those under which a dump shows the cookie.
  // kUnsupported when the kernel has no SOCK_DESTROY; kClosed when no such socket is in the tables
  // (closed, or not connected yet).
  Result<void> Destroy(uint64_t cookie, const Flow& flow);

 private:
  explicit InetDiag(NetlinkSocket socket) : socket_(std::move(socket)) {}

  NetlinkSocket socket_;
};

// Reads one message of a dump; nothing when it is malformed or of another type.
std::optional<LiveSocket> ParseDiag(std::span<const uint8_t> message);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_INET_DIAG_H_
