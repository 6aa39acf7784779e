// The kernel tells the two kinds of handlers apart in one place only: where a system call without a
// time-out is interrupted. ppoll() has one, and returns EINTR for every handler. So where a process
// has handlers of both kinds, those with SA_RESTART are held back during the call: what interrupts
// it then was another. They run between two calls, a moment later; the others, which must not be
// missed, run during one and at no other time.

#include "shim/wait.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include <cerrno>

#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

// How long a handler may be held back.
constexpr int64_t kSliceMs = 20;
constexpr int kSignalCount = 64;

// The kernel's own struct and set of signals; libc's differ.
struct KernelAction {
  void* handler;
  uint64_t flags;
  void* restorer;
  uint64_t mask;
};
constexpr long kSetSize = sizeof(uint64_t);

struct Handlers {
  uint64_t restarting = 0;
  uint64_t others = 0;
};

// What handlers may run on this thread.
Handlers Installed(uint64_t blocked) {
  Handlers found;
  for (int number = 1; number <= kSignalCount; ++number) {
    const uint64_t bit = uint64_t{1} << (number - 1);
    if ((blocked & bit) != 0) continue;
    KernelAction action{};
    const long result =
        RawSyscall(SYS_rt_sigaction, number, 0, reinterpret_cast<long>(&action), kSetSize);
    const auto handler = reinterpret_cast<uintptr_t>(action.handler);
    if (result < 0 || handler <= 1) continue;  // SIG_DFL, SIG_IGN
    ((action.flags & SA_RESTART) != 0 ? found.restarting : found.others) |= bit;
  }
  return found;
}

}  // namespace

int64_t NowMs() {
  timespec now{};
  RawSyscall(SYS_clock_gettime, CLOCK_MONOTONIC, reinterpret_cast<long>(&now));
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

Wait::Wait(Signals signals) : signals_(signals) {
  if (signals_ == Signals::kGoOn) return;
  // As a rule the answer is there before anything needs to be known about handlers.
  const uint64_t all = ~uint64_t{0};
  RawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&all),
             reinterpret_cast<long>(&before_), kSetSize);
}

Wait::~Wait() {
  if (signals_ == Signals::kGoOn) return;
  RawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&before_), 0, kSetSize);
}

void Wait::LetRun() {
  if (signals_ == Signals::kGoOn) return;
  const Handlers handlers = Installed(before_);
  uint64_t ending = handlers.others;
  if (signals_ == Signals::kAny) ending |= handlers.restarting;
  const uint64_t held = handlers.restarting & ~ending;
  // With none installed, or none to be seen, whatever runs is new or unknown.
  ends_ = ending != 0 || held == 0;
  slices_ = ending != 0 && held != 0;
  asleep_ = slices_ ? before_ | held : before_;
  const uint64_t awake = before_ | ending;
  RawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&awake), 0, kSetSize);
}

Woken Wait::Until(int fd, int64_t until) {
  LetRun();  // each time: another thread may install a handler meanwhile
  for (;;) {
    const int64_t now = NowMs();
    const int64_t left = until > now ? until - now : 0;
    const int64_t slice = slices_ && left > kSliceMs ? kSliceMs : left;
    timespec timeout{slice / 1000, slice % 1000 * 1'000'000};
    pollfd watched{fd, POLLIN, 0};
    const bool masked = signals_ != Signals::kGoOn;
    const long result =
        RawSyscall(SYS_ppoll, reinterpret_cast<long>(&watched), 1, reinterpret_cast<long>(&timeout),
                   masked ? reinterpret_cast<long>(&asleep_) : 0, kSetSize);
    if (result > 0) return Woken::kReady;
    if (result == 0 && slice == left) return Woken::kLate;
    if (result == 0) continue;
    if (result != -EINTR) return Woken::kLate;  // ENOMEM
    if (ends_) return Woken::kSignal;
  }
}

}  // namespace latchkey::shim
