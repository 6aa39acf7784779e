// Closing and replacing descriptors: nothing is recorded about the program's own (sockets are known
// by their cookies), so all there is to do is to keep the program's hands off our connections.

#include <linux/close_range.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/hooks.h"
#include "shim/link.h"
#include "shim/past.h"
#include "shim/real.h"

namespace latchkey::shim {
namespace {

constexpr int kMaxLinks = 8;

int RealCloseRange(unsigned first, unsigned last, int flags) {
  if (real.close_range != nullptr) return real.close_range(first, last, flags);
  return static_cast<int>(SystemCall(SYS_close_range, first, last, flags));
}

// Closes a range around our connections.
int CloseAround(unsigned first, unsigned last, int flags) {
  int links[kMaxLinks];
  const int count = LinksInOrder(links, kMaxLinks);
  for (int i = 0; i < count; ++i) {
    const auto link = static_cast<unsigned>(links[i]);
    if (link < first || link > last) continue;
    if (link > first) {
      if (const int result = RealCloseRange(first, link - 1, flags); result != 0) return result;
    }
    if (link == last) return 0;
    first = link + 1;
  }
  return RealCloseRange(first, last, flags);
}

// `to` is about to be what `from` is.
void TakePlace(int from, int to) {
  ForgetLink(to);
  if (MayHavePast(from)) NotePast(to);
}

}  // namespace

int HookClose(int fd) {
  if (IsLink(fd)) {
    errno = EBADF;  // to the program it does not exist
    return -1;
  }
  ForgetPast(fd);
  if (real.close != nullptr) return real.close(fd);
  return static_cast<int>(SystemCall(SYS_close, fd));
}

int HookCloseRange(unsigned first, unsigned last, int flags) {
  // Marking ours close-on-exec changes nothing: they are.
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
  if (real.dup2 != nullptr) return real.dup2(from, to);
  return static_cast<int>(SystemCall(SYS_dup2, from, to));
}

int HookDup3(int from, int to, int flags) {
  if (from != to) TakePlace(from, to);
  if (real.dup3 != nullptr) return real.dup3(from, to, flags);
  return static_cast<int>(SystemCall(SYS_dup3, from, to, flags));
}

}  // namespace latchkey::shim
