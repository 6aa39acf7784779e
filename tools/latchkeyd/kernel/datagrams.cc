#include "tools/latchkeyd/kernel/datagrams.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "tools/latchkeyd/kernel/addresses.h"

namespace latchkey::broker {
namespace {

// No datagram takes less of the receive buffer, whatever its size (sk_buff and its shared info).
constexpr int kLeastOctets = 256;

// True when a call on an empty queue is what ended it. A pending error (ICMP's) is told once, by
// the next call, whatever the queue holds.
bool Receive(int fd, int flags) {
  char octet = 0;
  iovec part{&octet, sizeof(octet)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return recvmsg(fd, &message, flags | MSG_DONTWAIT | MSG_TRUNC) < 0 && errno == EAGAIN;
}

}  // namespace

void PushOutDatagrams(int fd) {
  int corked = 0;
  socklen_t length = sizeof(corked);
  if (getsockopt(fd, IPPROTO_UDP, UDP_CORK, &corked, &length) != 0) return;
  const int off = 0;
  static_cast<void>(setsockopt(fd, IPPROTO_UDP, UDP_CORK, &off, sizeof(off)));
  if (corked != 0) static_cast<void>(setsockopt(fd, IPPROTO_UDP, UDP_CORK, &corked, length));
}

void DrainDatagrams(int fd) {
  int room = 0;
  socklen_t length = sizeof(room);
  if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, &length) != 0) room = 1 << 30;
  // The last one may exceed the room; each pending error takes a call too.
  const int most = room / kLeastOctets + 64;
  for (const int queue : {int{MSG_ERRQUEUE}, 0}) {
    for (int i = 0; i < most; ++i) {
      if (Receive(fd, queue)) break;
    }
  }
}

void ConnectAndDrain(int fd, bool v6_socket, const SocketAddress& remote, uint32_t scope) {
  sockaddr_storage address{};
  const socklen_t length = ToSockaddr(remote, v6_socket, scope, &address);
  if (length != 0) {
    static_cast<void>(connect(fd, reinterpret_cast<const sockaddr*>(&address), length));
  }
  DrainDatagrams(fd);
}

Result<void> ShutDownDatagrams(int fd) {
  // ENOTCONN is said of an unconnected one, and done all the same.
  if (shutdown(fd, SHUT_RDWR) == 0 || errno == ENOTCONN) return {};
  return Fail(Reason::kKernelRefused, "shutdown", std::strerror(errno));
}

}  // namespace latchkey::broker
