// UDP without connections: what the broker is told of, and asked about, before the kernel is.
//
// A socket that the broker holds is guarded for as long as it lives: what comes in is the kernel's
// affair, and what it sends to a peer that it may not send to the kernel refuses with EPERM. So a
// send on it is made at once, and looked into only when it failed. Async-signal-safe, no lock.
#ifndef SHIM_DATAGRAMS_H_
#define SHIM_DATAGRAMS_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <cerrno>

namespace latchkey::shim {

// True for SOCK_DGRAM of AF_INET and AF_INET6; and those of them that are UDP (not UDP-Lite, ICMP).
bool IsDatagrams(int fd);
bool IsUdp(int fd);
// True when getpeername() knows a peer.
bool IsConnected(int fd);

// True when the default is to discard, or not known for want of a session.
bool DatagramsDenied();

// True when a socket of another kind than UDP's and TCP's must not be bound, or connected, to
// `address`: the default is to discard what would come in. UDP's too without a session, and any
// whose kind cannot be known where UDP's are held.
bool BindRefused(int fd, const sockaddr* address, socklen_t length);

// True when the broker is to be told of a bind() of this socket, once it is done.
bool MustHold(int fd);
// Tells it. 0, or the errno: then the socket is good for nothing any more.
int Hold(int fd);

// Returns the errno that a send to `address` is to fail with before it is made, 0 for none. Asks
// the broker about a socket that it does not hold, and waits for keys as send() would wait for
// room; with `flags` MSG_DONTWAIT, or O_NONBLOCK, no longer than the broker keeps such a caller.
int BeforeSend(int fd, const sockaddr* address, socklen_t length, int flags);

// What failed in a send to `address`, by errno: true, it is to be made once more, the broker has
// now seen to it. Otherwise errno is what the program is to see. Of a datagram in parts none is
// made again but the first.
bool GrantedLate(int fd, const sockaddr* address, socklen_t length, int flags);

// The same for the result of a send: one that was made costs nothing.
inline bool MustSendAgain(ssize_t result, int fd, const sockaddr* address, socklen_t length,
                          int flags) {
  if (result >= 0 || address == nullptr) [[likely]]
    return false;
  if (errno != EPERM && errno != EAGAIN && errno != EINVAL) return false;
  return GrantedLate(fd, address, length, flags);
}

}  // namespace latchkey::shim

#endif  // SHIM_DATAGRAMS_H_
