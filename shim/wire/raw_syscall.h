// System calls without libc: what the shim uses for its own needs, so that it never runs into its
// own hooks, never touches errno and is no cancellation point. x86-64 only.
#ifndef SHIM_WIRE_RAW_SYSCALL_H_
#define SHIM_WIRE_RAW_SYSCALL_H_

#ifndef __x86_64__
#error "raw_syscall.h knows x86-64 only"
#endif

namespace latchkey::wire {

// Makes a system call; returns its value, or minus the errno (the kernel's own convention).
inline long RawSyscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                       long f = 0) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

}  // namespace latchkey::wire

#endif  // SHIM_WIRE_RAW_SYSCALL_H_
