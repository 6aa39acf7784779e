#include "shim/readable.h"

#include <sys/auxv.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdint>

#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

constexpr uintptr_t kPage = 4096;
// Nothing but the stack is ever mapped that near to its end: the kernel keeps a gap of 128 MiB.
constexpr uintptr_t kNear = 512UL * 1024;

// An address near the main thread's end of stack; 0 until the constructor ran.
uintptr_t main_stack;

__attribute__((constructor(101))) void FindMainStack() {
  main_stack = getauxval(AT_RANDOM);  // 16 octets that the kernel put there, above all frames
}

// True when [first, last) is between a live frame and the end of the stack that it is on.
bool IsOnStack(uintptr_t first, uintptr_t last) {
  const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  if (first < frame) return false;
  if (last <= (frame | (kPage - 1)) + 1) return true;
  return frame < main_stack && main_stack - frame < kNear && last <= main_stack;
}

}  // namespace

bool IsReadable(const void* data, size_t size) {
  constexpr uintptr_t kSet = 8;  // octets of a signal set
  const auto first = reinterpret_cast<uintptr_t>(data);
  // Nothing is ever mapped at the bottom, and a null set would not be read.
  if (first < kPage || first > UINTPTR_MAX - kPage - size) return false;
  if (IsOnStack(first, first + size)) return true;
  // rt_sigprocmask reads the set before it finds that there is no such operation.
  for (uintptr_t at = first; at < first + size; at = (at | (kPage - 1)) + 1) {
    const long set = static_cast<long>(at & ~(kSet - 1));
    if (wire::RawSyscall(SYS_rt_sigprocmask, ~0, set, 0, kSet) == -EFAULT) return false;
  }
  return true;
}

}  // namespace latchkey::shim
