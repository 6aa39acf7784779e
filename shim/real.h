// The functions behind ours: what the next object in line (libc, or another preload) offers.
#ifndef SHIM_REAL_H_
#define SHIM_REAL_H_

#include <spawn.h>
#include <stdio.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include <atomic>
#include <cerrno>

#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {

struct Real {
#define X(name, result, parameters) result(*name) parameters;
#include "shim/hooks.def"
#undef X
};

// Null pointers until ResolveReal() ran: hooks called before that go by system calls.
extern Real real;

// True when the data calls behind ours are libc's own, which do no more than the system call while
// there is one thread (pthread_cancel() on that thread counts as a second: glibc 2.36).
extern std::atomic<bool> libc_is_next;

// Looks all of them up, once, from the constructor. One that is missing, or that is ours again,
// stays null.
void ResolveReal();

// Turns a raw system call's result into libc's: -1 and errno.
inline long Libc(long result) {
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}

template <typename... Arguments>
long SystemCall(long number, Arguments... arguments) {
  return Libc(wire::RawSyscall(number, (long)arguments...));
}

// Makes a data call: by `next`, or as system call `number` where libc would add nothing to it. To
// return through one more function after a system call costs 10 to 20 ns on some machines.
template <typename Result, typename... Parameters, typename... Arguments>
Result DataCall(Result (*next)(Parameters...), long number, Arguments... arguments) {
  const bool here = __libc_single_threaded != 0 && libc_is_next.load(std::memory_order_relaxed);
  if (next != nullptr && !here) return next(arguments...);
  return static_cast<Result>(SystemCall(number, arguments...));
}

}  // namespace latchkey::shim

#endif  // SHIM_REAL_H_
