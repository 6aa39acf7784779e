#include "shim/exempt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

bool Holds(const wire::Page& page, const char* path) {
  for (const auto& listed : page.drop_preload) {
    if (listed[0] == '\0') break;
    for (size_t i = 0; i < sizeof(listed) && listed[i] == path[i]; ++i) {
      if (path[i] == '\0') return true;
    }
  }
  return false;
}

// Reads where the descriptor's file is; false when that is not known, or longer than what is
// listed.
bool PathOf(long fd, char* path, size_t room) {
  char link[32] = "/proc/self/fd/";
  size_t at = 14;
  char digits[12];
  size_t count = 0;
  for (long rest = fd; count == 0 || rest > 0; rest /= 10) {
    digits[count++] = static_cast<char>('0' + rest % 10);
  }
  while (count > 0) link[at++] = digits[--count];
  link[at] = '\0';
  const long length = RawSyscall(SYS_readlink, reinterpret_cast<long>(link),
                                 reinterpret_cast<long>(path), static_cast<long>(room));
  if (length <= 0 || static_cast<size_t>(length) >= room) return false;
  path[length] = '\0';
  return true;
}

bool IsExecutable(const char* path) {
  struct stat status {};
  return RawSyscall(SYS_stat, reinterpret_cast<long>(path), reinterpret_cast<long>(&status)) == 0 &&
         S_ISREG(status.st_mode) && RawSyscall(SYS_access, reinterpret_cast<long>(path), X_OK) == 0;
}

}  // namespace

bool AnyExempt(const wire::Page& page) { return page.drop_preload[0][0] != '\0'; }

bool IsExempt(const wire::Page& page, int folder, const char* path) {
  char real_path[wire::kPathSize];
  if (path[0] == '\0') {
    return folder >= 0 && PathOf(folder, real_path, sizeof(real_path)) && Holds(page, real_path);
  }
  const long fd = RawSyscall(SYS_openat, folder, reinterpret_cast<long>(path), O_PATH | O_CLOEXEC);
  if (fd < 0) return false;
  const bool known = PathOf(fd, real_path, sizeof(real_path));
  RawSyscall(SYS_close, fd);
  return Holds(page, path) || (known && Holds(page, real_path));
}

bool FindInPath(const char* name, const char* search_path, char* found, unsigned long room) {
  const char* at = search_path != nullptr ? search_path : "/bin:/usr/bin";
  while (true) {
    size_t length = 0;
    for (; *at != '\0' && *at != ':'; ++at) {
      if (length + 1 < room) found[length++] = *at;
    }
    // An empty folder is the working directory.
    if (length == 0) found[length++] = '.';
    if (length + 1 < room) found[length++] = '/';
    for (const char* c = name; *c != '\0' && length + 1 < room; ++c) found[length++] = *c;
    found[length] = '\0';
    if (length + 1 < room && IsExecutable(found)) return true;
    if (*at == '\0') return false;
    ++at;
  }
}

}  // namespace latchkey::shim
