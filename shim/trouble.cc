#include "shim/trouble.h"

#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/ask.h"
#include "shim/page_view.h"
#include "shim/session.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

constexpr int kTcpClose = 7;

Ailment AilmentOf(int fd) {
  const wire::Page* page = CurrentPage();
  uint64_t cookie = 0;
  if (page == nullptr || !CookieOf(fd, cookie)) return Ailment{};
  const Ailment found = FindTrouble(*page, cookie);
  if (found.trouble != wire::Trouble::kFree) return found;
  // The table ran over: what is not in it may be in trouble all the same.
  const bool overflow = (page->flags.load(std::memory_order_acquire) & wire::kPageOverflow) != 0;
  return Ailment{overflow && TcpState(fd) >= 0 ? wire::Trouble::kNoSa : wire::Trouble::kFree};
}

int RefusalErrno(wire::Reason reason) {
  const int error = wire::ReasonErrno(reason);
  return error != 0 ? error : EACCES;
}

}  // namespace

bool AnyTrouble() {
  const wire::Page* page = CurrentPage();
  return page != nullptr && page->troubled.load(std::memory_order_relaxed) != 0;
}

int EndedWith(int fd) {
  const Ailment found = AilmentOf(fd);
  switch (found.trouble) {
    case wire::Trouble::kBroken:
      return ECONNRESET;
    case wire::Trouble::kRefused:
      return RefusalErrno(found.reason);
    case wire::Trouble::kNoSa:
      return TcpState(fd) == kTcpClose ? ECONNRESET : 0;
    case wire::Trouble::kFree:
      break;
  }
  return 0;
}

int RefusedWith(int fd) {
  if (!AnyTrouble()) return 0;
  const Ailment found = AilmentOf(fd);
  return found.trouble == wire::Trouble::kRefused ? RefusalErrno(found.reason) : 0;
}

int CheckedConnect(int fd, int result) {
  const int saved = errno;
  if (result == 0 || saved == EINTR || saved == EISCONN || !AnyTrouble()) return result;
  const int error = EndedWith(fd);
  errno = error != 0 ? error : saved;
  return result;
}

ssize_t LookCloser(int fd, ssize_t result) {
  const int saved = errno;
  if (result < 0 && saved == EINTR) return result;
  const Ailment found = AilmentOf(fd);
  int error = 0;
  switch (found.trouble) {
    case wire::Trouble::kBroken:
      error = ECONNRESET;
      break;
    case wire::Trouble::kRefused:
      error = RefusalErrno(found.reason);
      break;
    case wire::Trouble::kNoSa:
      // For want of an SA TCP gives up with EAGAIN (IPv6), ETIMEDOUT or a clean-looking end. EAGAIN
      // alone may just mean that there is nothing to read yet.
      if (result >= 0 || saved != EAGAIN || TcpState(fd) == kTcpClose) error = ECONNRESET;
      break;
    case wire::Trouble::kFree:
      break;
  }
  errno = error != 0 ? error : saved;
  return error != 0 ? -1 : result;
}

bool LacksKeys(int fd, int flags) {
  if (IntOption(fd, SOL_SOCKET, SO_TYPE) != SOCK_DGRAM ||
      IntOption(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP || !IsGuarded(fd)) {
    return false;
  }
  // A call that waits for room is never told that there is none, unless it waits for so long only.
  timeval limit{};
  if ((flags & MSG_DONTWAIT) == 0 && !IsNonblocking(fd) && SendTimeout(fd, limit) == 0) return true;
  int waiting = -1;
  // What a full buffer says EAGAIN about is under way; for want of an SA nothing is.
  return wire::RawSyscall(SYS_ioctl, fd, SIOCOUTQ, reinterpret_cast<long>(&waiting)) == 0 &&
         waiting == 0;
}

ssize_t LookForKeys(int fd, int flags) {
  errno = LacksKeys(fd, flags) ? ENOKEY : EAGAIN;
  return -1;
}

}  // namespace latchkey::shim
