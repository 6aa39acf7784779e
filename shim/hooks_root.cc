// chroot: from inside, the broker's socket may not be found any more. So that a daemon that locks
// itself up can go on asking, its connections are made before.

#include <sys/syscall.h>

#include <cerrno>

#include "shim/hooks.h"
#include "shim/link.h"
#include "shim/real.h"

namespace latchkey::shim {

int HookChroot(const char* path) {
  const int saved = errno;
  AttachAll();
  errno = saved;
  if (real.chroot != nullptr) return real.chroot(path);
  return static_cast<int>(SystemCall(SYS_chroot, path));
}

}  // namespace latchkey::shim
