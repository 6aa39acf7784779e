// libregisters.so: ptrace() for linux.uml (registers.h says why). No allocation and no lock: it is
// called by what is a kernel, on stacks of 16 KiB.
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>

#include "tests/lab/uml/registers.h"

namespace {

// The guest has one processor and is not preempted: one at a time.
alignas(64) std::byte whole[latchkey::lab::kMostOctets];

const size_t octets_here = latchkey::lab::RegisterOctets();

}  // namespace

extern "C" __attribute__((visibility("default"))) long ptrace(enum __ptrace_request request,
                                                              ...) noexcept {
  va_list list;
  va_start(list, request);
  const pid_t pid = va_arg(list, pid_t);
  void* address = va_arg(list, void*);
  void* data = va_arg(list, void*);
  va_end(list);

  // The system call writes a word that it has read to where `data` points; the function returns it.
  long word = 0;
  const bool reads =
      request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER;
  iovec padded = {whole, octets_here};
  if (reads) {
    data = &word;
  } else if (request == PTRACE_SETREGSET && reinterpret_cast<uintptr_t>(address) == NT_X86_XSTATE) {
    const auto* known = static_cast<const iovec*>(data);
    if (known->iov_len < octets_here && octets_here <= sizeof whole &&
        latchkey::lab::PadRegisters(
            {static_cast<const std::byte*>(known->iov_base), known->iov_len},
            {whole, octets_here})) {
      data = &padded;
    }
  }
  const long result = syscall(SYS_ptrace, request, pid, address, data);
  return reads && result >= 0 ? word : result;
}
