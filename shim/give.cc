#include "shim/give.h"

#include <sys/syscall.h>
#include <sys/uio.h>

#include <cerrno>

#include "shim/readable.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {

using wire::RawSyscall;

bool Give(void* to, const void* from, size_t size) {
  if (size == 0) return true;
  iovec source{const_cast<void*>(from), size};
  iovec target{to, size};
  const long written =
      RawSyscall(SYS_process_vm_writev, RawSyscall(SYS_getpid), reinterpret_cast<long>(&source), 1,
                 reinterpret_cast<long>(&target), 1, 0);
  if (written >= 0 || written == -EFAULT) return written == static_cast<long>(size);
  // A sandbox may deny the call.
  if (!IsReadable(to, size)) return false;
  for (size_t i = 0; i < size; ++i) {
    static_cast<char*>(to)[i] = static_cast<const char*>(from)[i];
  }
  return true;
}

}  // namespace latchkey::shim
