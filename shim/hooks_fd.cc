// Making, closing and replacing descriptors: nothing is recorded about the program's own but hints
// (sockets are known by their cookies), so all there is to do is to forget these, and to keep the
// program's hands off our connections.

#include <linux/close_range.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/held.h"
#include "shim/hooks.h"
#include "shim/link.h"
#include "shim/parts.h"
#include "shim/past.h"
#include "shim/real.h"
#include "shim/session.h"

namespace latchkey::shim {
namespace {

constexpr int kMaxLinks = 8;
constexpr unsigned kNobody = ~0U;  // a number that no descriptor has

int RealCloseRange(unsigned first, unsigned last, int flags) {
  if (real.close_range != nullptr) return real.close_range(first, last, flags);
  return static_cast<int>(SystemCall(SYS_close_range, first, last, flags));
}

// Closes a range around our connections.
int CloseApart(unsigned first, unsigned last, int flags) {
  int links[kMaxLinks];
  const int count = LinksInOrder(links, kMaxLinks);
  for (int i = 0; i < count; ++i) {
    const auto link = static_cast<unsigned>(links[i]);
    if (link < first || link > last) continue;
    if (link > first) {
      if (const int result = RealCloseRange(first, link - 1, flags); result != 0) return result;
    }
    // Nothing is left but what the kernel says of the flags.
    if (link == last) return RealCloseRange(kNobody, kNobody, flags);
    first = link + 1;
  }
  return RealCloseRange(first, last, flags);
}

int CloseAround(unsigned first, unsigned last, int flags) {
  ForgetHeldRange(first, last);
  const int result = CloseApart(first, last, flags);
  ForgetHeldRange(first, last);
  return result;
}

// `to` is about to be what `from` is.
void TakePlace(int from, int to) {
  ForgetHeld(to);
  if (MayHavePast(from)) NotePast(to);
}

// `to` is that now, unless the call failed.
int TookPlace(int to, int result) {
  if (result >= 0) ForgetLink(to);  // nobody read or wrote there meanwhile: link.h
  ForgetHeld(to);
  return result;
}

}  // namespace

int HookClose(int fd) {
  if (IsLink(fd)) {
    errno = EBADF;  // to the program it does not exist
    return -1;
  }
  ForgetPast(fd);
  ForgetHeld(fd);
  const int result =
      real.close != nullptr ? real.close(fd) : static_cast<int>(SystemCall(SYS_close, fd));
  ForgetHeld(fd);
  return result;
}

// libc's other name of it, which is for anybody to use, too.
int CloseToo(int fd) LATCHKEY_HOOK(__close);
int CloseToo(int fd) { return HookClose(fd); }

int HookCloseRange(unsigned first, unsigned last, int flags) {
  // Marking ours close-on-exec changes nothing: they are.
  if ((flags & CLOSE_RANGE_UNSHARE) != 0) StopHints();
  if (first > last || (flags & CLOSE_RANGE_CLOEXEC) != 0) {
    return RealCloseRange(first, last, flags);
  }
  return CloseAround(first, last, flags);
}

void HookClosefrom(int first) LATCHKEY_HOOK(closefrom);
void HookClosefrom(int first) {
  const int saved = errno;
  if (CloseAround(first < 0 ? 0 : static_cast<unsigned>(first), ~0U, 0) != 0 &&
      real.closefrom != nullptr) {
    real.closefrom(first);  // a kernel without close_range: libc knows another way
  }
  errno = saved;
}

int HookDup2(int from, int to) {
  if (from != to) TakePlace(from, to);
  const int result =
      real.dup2 != nullptr ? real.dup2(from, to) : static_cast<int>(SystemCall(SYS_dup2, from, to));
  return from != to ? TookPlace(to, result) : result;
}

int Dup2Too(int from, int to) LATCHKEY_HOOK(__dup2);
int Dup2Too(int from, int to) { return HookDup2(from, to); }

int HookDup3(int from, int to, int flags) {
  if (from != to) TakePlace(from, to);
  const int result = real.dup3 != nullptr ? real.dup3(from, to, flags)
                                          : static_cast<int>(SystemCall(SYS_dup3, from, to, flags));
  return from != to ? TookPlace(to, result) : result;
}

int HookSocket(int family, int type, int protocol) {
  // Plain TCP, which a program that asks for MPTCP is used to get: the kernel lets no policy be put
  // on a socket of MPTCP, nor on its subflows.
  const bool inet = family == AF_INET || family == AF_INET6;
  if (protocol == IPPROTO_MPTCP && inet && !NothingToDo()) protocol = IPPROTO_TCP;
  const int result = real.socket != nullptr
                         ? real.socket(family, type, protocol)
                         : static_cast<int>(SystemCall(SYS_socket, family, type, protocol));
  FreshHeld(result);
  FreshParts(result);
  return result;
}

FILE* HookFdopen(int fd, const char* mode) LATCHKEY_HOOK(fdopen);
FILE* HookFdopen(int fd, const char* mode) {
  NeverHeld(fd);                              // no hook sees libc's fclose() close it
  if (real.fdopen == nullptr) ResolveReal();  // from another library's constructor
  if (real.fdopen != nullptr) return real.fdopen(fd, mode);
  errno = ENOSYS;
  return nullptr;
}

int HookUnshare(int flags) {
  if ((flags & CLONE_FILES) != 0) StopHints();
  if (real.unshare != nullptr) return real.unshare(flags);
  return static_cast<int>(SystemCall(SYS_unshare, flags));
}

}  // namespace latchkey::shim
