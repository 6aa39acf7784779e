#include "shim/trouble.h"

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

bool CookieOf(int fd, uint64_t& cookie) {
  socklen_t length = sizeof(cookie);
  return wire::RawSyscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE,
                          reinterpret_cast<long>(&cookie), reinterpret_cast<long>(&length)) == 0;
}

wire::Trouble TroubleOf(int fd) {
  const wire::Page* page = CurrentPage();
  uint64_t cookie = 0;
  if (page == nullptr || !CookieOf(fd, cookie)) return wire::Trouble::kFree;
  const wire::Trouble found = FindTrouble(*page, cookie);
  if (found != wire::Trouble::kFree) return found;
  // The table ran over: what is not in it may be in trouble all the same.
  const bool overflow = (page->flags.load(std::memory_order_acquire) & wire::kPageOverflow) != 0;
  return overflow && TcpState(fd) >= 0 ? wire::Trouble::kNoSa : wire::Trouble::kFree;
}

}  // namespace

bool AnyTrouble() {
  const wire::Page* page = CurrentPage();
  return page != nullptr && page->troubled.load(std::memory_order_relaxed) != 0;
}

bool IsBroken(int fd) {
  switch (TroubleOf(fd)) {
    case wire::Trouble::kBroken:
    case wire::Trouble::kRefused:
      return true;
    case wire::Trouble::kNoSa:
      return TcpState(fd) == kTcpClose;
    case wire::Trouble::kFree:
      break;
  }
  return false;
}

ssize_t LookCloser(int fd, ssize_t result) {
  const int saved = errno;
  if (result < 0 && saved == EINTR) return result;
  const wire::Trouble trouble = TroubleOf(fd);
  bool reset = trouble == wire::Trouble::kBroken;
  if (trouble == wire::Trouble::kNoSa) {
    // For want of an SA TCP gives up with EAGAIN (IPv6), ETIMEDOUT or a clean-looking end. EAGAIN
    // alone may just mean that there is nothing to read yet.
    const bool waiting = result < 0 && saved == EAGAIN;
    reset = !waiting || TcpState(fd) == kTcpClose;
  }
  errno = reset ? ECONNRESET : saved;
  return reset ? -1 : result;
}

}  // namespace latchkey::shim
