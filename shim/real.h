// The functions behind ours: what the next object in line (libc, or another preload) offers.
#ifndef SHIM_REAL_H_
#define SHIM_REAL_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

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

}  // namespace latchkey::shim

#endif  // SHIM_REAL_H_
