#include "shim/handed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>

#include "shim/ask.h"
#include "shim/session.h"
#include "shim/wait.h"
#include "shim/wire/messages.h"
#include "shim/wire/raw_syscall.h"
#include "shim/wire/reason.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

constexpr int kFirst = 3;          // SD_LISTEN_FDS_START
constexpr int kLargest = 1 << 28;  // of numbers that are believed

// How long the broker is not asked again once it has refused: each client that comes would have it
// look at all sockets.
constexpr int64_t kAgainMs = 1000;
std::atomic<int64_t> not_before;

// Returns what a variable says, 0 where it is no number above that.
int NumberIn(const char* variable) {
  const char* text = getenv(variable);
  int64_t number = 0;
  for (; text != nullptr && *text != '\0'; ++text) {
    if (*text < '0' || *text > '9') return 0;
    number = number * 10 + *text - '0';
    if (number > kLargest) return 0;
  }
  return static_cast<int>(number);
}

bool Listens(int fd) {
  return IntOption(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 &&
         IntOption(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM && IsInet(fd);
}

char* Put(char* to, const char* text) {
  while (*text != '\0') *to++ = *text++;
  return to;
}

void SayUnlatched(int fd, wire::Reason reason) {
  char line[160];
  char* end = Put(line, "latchkey: a listener that it was handed is not latched: descriptor ");
  char digits[12];
  char* digit = digits + sizeof(digits) - 1;
  *digit = '\0';
  for (int rest = fd; rest > 0; rest /= 10) *--digit = static_cast<char>('0' + rest % 10);
  end = Put(Put(end, digit), ": ");
  end = Put(Put(end, wire::ReasonWord(reason)), "\n");
  RawSyscall(SYS_write, 2, reinterpret_cast<long>(line), end - line);
}

// 103: after the session is there. Not every listener that the program inherits is meant for it:
// one that leaked would be latched for whoever serves it. These are.
__attribute__((constructor(103))) void LatchHanded() {
  if (getauxval(AT_SECURE) != 0 || CurrentPage() == nullptr || NothingToDo()) return;
  const int count = NumberIn("LISTEN_FDS");
  if (count == 0 || NumberIn("LISTEN_PID") != static_cast<int>(RawSyscall(SYS_getpid))) return;
  const int saved = errno;
  for (int fd = kFirst; fd < kFirst + count; ++fd) {
    if (RawSyscall(SYS_fcntl, fd, F_GETFD) < 0) break;
    if (!Listens(fd)) continue;
    const Permission permission = AskAbout(wire::Type::kListen, fd, wire::Endpoint{});
    if (permission.granted) continue;
    const bool answered = permission.reason != wire::Reason::kNone;
    SayUnlatched(fd, answered ? permission.reason : wire::Reason::kBrokerGone);
  }
  errno = saved;
}

}  // namespace

void LatchListener(int fd) {
  const int saved = errno;
  // Another thread may have closed it, and made another socket of that number.
  if (NowMs() >= not_before.load(std::memory_order_relaxed) && Listens(fd) && !IsGuarded(fd) &&
      !AskAbout(wire::Type::kListen, fd, wire::Endpoint{}).granted) {
    not_before.store(NowMs() + kAgainMs, std::memory_order_relaxed);
  }
  errno = saved;
}

}  // namespace latchkey::shim
