// Netlink through libnl's core: a socket for requests, which the kernel answers at once, and one
// for events.
//
// Answers are read with nl_recv() and judged here: libnl folds errnos together (EEXIST survives,
// ENOENT and ESRCH become one, ENOBUFS looks like no memory).
#ifndef TOOLS_LATCHKEYD_KERNEL_NETLINK_SOCKET_H_
#define TOOLS_LATCHKEYD_KERNEL_NETLINK_SOCKET_H_

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "policy/model/error.h"

struct nl_sock;

namespace latchkey::broker {

// What the kernel answered: an errno (positive) and its own words, where it had any.
struct NetlinkError {
  int number = 0;
  std::string text;

  std::string ToString() const;
};

namespace internal {
struct SocketFree {
  void operator()(nl_sock* socket) const;
};
using SocketHandle = std::unique_ptr<nl_sock, SocketFree>;
}  // namespace internal

// A socket for requests. Not for two threads at a time.
class NetlinkSocket {
 public:
  using Visit = std::function<bool(std::span<const uint8_t>)>;

  // `protocol`: NETLINK_XFRM, NETLINK_SOCK_DIAG, … An answer that does not come within 5 s is an
  // error (the kernel answers while the request is being sent; this only guards against a bug).
  static Result<NetlinkSocket> Open(int protocol);

  // Sends one request (an nlmsghdr and its body; flags, sequence and length of the header are
  // filled in) and waits for its acknowledgement.
  std::expected<void, NetlinkError> Request(std::span<const uint8_t> message);

  // Sends a request for one message; the answer goes to `visit`.
  std::expected<void, NetlinkError> Get(std::span<const uint8_t> message, const Visit& visit);

  // Sends a dump request; every message of it goes to `visit`, which ends the dump with EBADMSG by
  // returning false. EINTR when the kernel says that the dump is inconsistent: ask again.
  std::expected<void, NetlinkError> Dump(std::span<const uint8_t> message, const Visit& visit);

 private:
  explicit NetlinkSocket(internal::SocketHandle socket) : socket_(std::move(socket)) {}
  std::expected<void, NetlinkError> Send(std::span<const uint8_t> octets, uint16_t flags);
  // Reads until the answer to the last request ended.
  std::expected<void, NetlinkError> Receive(const Visit& visit, bool one);

  internal::SocketHandle socket_;
  uint32_t sequence_ = 0;
};

// A socket for multicast events, never blocking.
class NetlinkEvents {
 public:
  // Joins `groups` (numbers, not masks), all or none, with a receive buffer of `buffer` octets as
  // far as the kernel gives it.
  static Result<NetlinkEvents> Open(int protocol, const std::vector<int>& groups, int buffer);

  int fd() const;  // for epoll; stays owned

  // Hands every message that is there, up to about `limit` of them, to `visit`. Returns true when
  // events were lost (ENOBUFS). An error means that the socket is of no more use.
  Result<bool> Drain(const std::function<void(std::span<const uint8_t>)>& visit, int limit = 4096);

 private:
  explicit NetlinkEvents(internal::SocketHandle socket) : socket_(std::move(socket)) {}

  internal::SocketHandle socket_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_NETLINK_SOCKET_H_
