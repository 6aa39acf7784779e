// Waiting for the broker as the kernel's connect() waits for the peer: what signals do to it.
#ifndef SHIM_WAIT_H_
#define SHIM_WAIT_H_

#include <cstdint>

namespace latchkey::shim {

// What ends a wait beside what is waited for.
enum class Signals {
  kGoOn,           // none does
  kUnlessRestart,  // a handler without SA_RESTART, as in a system call that is restarted
  kAny,            // any handler, as in a socket call with a time-out (signal(7))
};

enum class Woken { kReady, kSignal, kLate };

// Returns milliseconds of a clock that only rises.
int64_t NowMs();

// A wait in several parts that counts as one call: a handler that ends it does so whenever it
// comes, not only while the thread sleeps. The mask of signals is another while this lives.
class Wait {
 public:
  explicit Wait(Signals signals);
  ~Wait();
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  // Waits until `fd` is readable (or closed at the other end), or NowMs() is `until`. What is there
  // already counts even when it is late.
  Woken Until(int fd, int64_t until);

 private:
  // Looks which handlers there are, and has those that do not end the wait run when it is awake.
  void LetRun();

  Signals signals_;
  bool ends_ = false;    // a handler that runs during a sleep ends the wait
  bool slices_ = false;  // some are held back then
  uint64_t before_ = 0;  // the thread's own mask
  uint64_t asleep_ = 0;  // the one to sleep with
};

}  // namespace latchkey::shim

#endif  // SHIM_WAIT_H_
