// accept and accept4: the kernel's child is shown to the program only once the broker has pinned
// it.

#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/ask.h"
#include "shim/give.h"
#include "shim/handed.h"
#include "shim/held.h"
#include "shim/hooks.h"
#include "shim/readable.h"
#include "shim/real.h"
#include "shim/session.h"

namespace latchkey::shim {
namespace {

int Next(int fd, sockaddr* address, socklen_t* length, int flags, bool plain) {
  if (plain && real.accept != nullptr) return real.accept(fd, address, length);
  if (real.accept4 != nullptr) return real.accept4(fd, address, length, flags);
  return static_cast<int>(SystemCall(SYS_accept4, fd, address, length, flags));
}

int RealAccept(int fd, sockaddr* address, socklen_t* length, int flags, bool plain) {
  const int child = Next(fd, address, length, flags, plain);
  FreshHeld(child);
  return child;
}

// Hands the peer's name to the program as the kernel does; 0 or the errno.
int Deliver(const sockaddr_storage& peer, socklen_t size, sockaddr* address, socklen_t* length) {
  if (address == nullptr) return 0;
  if (!IsReadable(length, sizeof(*length))) return EFAULT;
  const socklen_t room = *length;
  if (static_cast<int>(room) < 0) return EINVAL;
  const bool good =
      Give(address, &peer, room < size ? room : size) && Give(length, &size, sizeof(size));
  return good ? 0 : EFAULT;
}

int AcceptVerified(int fd, sockaddr* address, socklen_t* length, int flags, bool plain) {
  // A listener that came from another session may be latched although ours has no rule.
  if (NothingToDo() && !IsGuarded(fd)) {
    return RealAccept(fd, address, length, flags, plain);
  }
  // Others must not be asked for a name that the program did not ask for: those of AF_ALG have
  // none.
  if (address == nullptr && !IsInet(fd)) return RealAccept(fd, address, length, flags, plain);
  for (;;) {
    sockaddr_storage peer{};
    socklen_t peer_length = sizeof(peer);
    peer.ss_family = AF_UNSPEC;
    const int saved = errno;
    const int child =
        RealAccept(fd, reinterpret_cast<sockaddr*>(&peer), &peer_length, flags, plain);
    if (child < 0) return child;
    const bool inet = peer.ss_family == AF_INET || peer.ss_family == AF_INET6;
    if (inet) {
      const Permission permission = AskAbout(wire::Type::kAccept, child, wire::Endpoint{});
      if (!permission.granted) {
        // Closed unseen; the broker has blocked it, so nothing leaves in clear. The program goes on
        // waiting as if nobody had come.
        wire::RawSyscall(SYS_close, child);
        if (permission.reason == wire::Reason::kUnlatchedListener) LatchListener(fd);
        errno = saved;
        continue;
      }
    }
    if (const int error = Deliver(peer, peer_length, address, length); error != 0) {
      wire::RawSyscall(SYS_close, child);  // as the kernel does
      errno = error;
      return -1;
    }
    errno = saved;
    return child;
  }
}

}  // namespace

int HookAccept(int fd, sockaddr* address, socklen_t* length) {
  return AcceptVerified(fd, address, length, 0, /*plain=*/true);
}

int HookAccept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return AcceptVerified(fd, address, length, flags, /*plain=*/false);
}

}  // namespace latchkey::shim
