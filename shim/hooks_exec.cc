// exec and posix_spawn: what a program starts belongs to its session, whatever environment it is
// given. What must be in that environment and is not is put in, on the stack: a child of vfork()
// shares everything else with its parent.

#include <alloca.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "shim/exempt.h"
#include "shim/handover.h"
#include "shim/hooks.h"
#include "shim/readable.h"
#include "shim/real.h"
#include "shim/session.h"

namespace latchkey::shim {
namespace {

// A file as exec is given it; `path` null: it is not known which.
struct Target {
  int folder;
  const char* path;
  bool moves = false;  // it will be looked for in another working directory, perhaps
};

bool MayGoBare(const Target& target) {
  const wire::Page* page = CurrentPage();
  // A bad pointer is the kernel's to refuse.
  return page != nullptr && AnyExempt(*page) && target.path != nullptr &&
         IsReadable(target.path, 1) && (!target.moves || target.path[0] == '/') &&
         IsExempt(*page, target.folder, target.path);
}

// Makes the call with an environment that keeps the target in the session. `large` is what the call
// answers when that would be too large.
template <typename Call>
int Keep(char* const* environment, const Target& target, int large, Call call) {
  const Inventory inventory = TakeInventory(environment);
  if (inventory.whole || MayGoBare(target)) return call(environment);
  if (inventory.large) {
    if (large < 0) errno = E2BIG;
    return large;
  }
  auto* room = static_cast<char*>(alloca(inventory.size + alignof(char*)));
  room += -reinterpret_cast<uintptr_t>(room) % alignof(char*);
  return call(Complete(environment, inventory, room));
}

bool HasSlash(const char* name) {
  for (; *name != '\0'; ++name) {
    if (*name == '/') return true;
  }
  return false;
}

const char* SearchPath() {
  constexpr char kName[] = "PATH=";
  for (char* const* at = environ; at != nullptr && *at != nullptr; ++at) {
    size_t i = 0;
    while (kName[i] != '\0' && (*at)[i] == kName[i]) ++i;
    if (kName[i] == '\0') return *at + i;
  }
  return nullptr;
}

// Returns the path of what execvp() would start, which is `name` itself when no policy asks.
const char* Search(const char* name, char* room, size_t size) {
  const wire::Page* page = CurrentPage();
  if (page == nullptr || !AnyExempt(*page) || HasSlash(name)) return name;
  return FindInPath(name, SearchPath(), room, size) && IsExempt(*page, AT_FDCWD, room) ? room
                                                                                       : name;
}

// Of a name that is searched for and was not found to be exempt, nothing is known.
Target Found(const char* name, bool moves = false) {
  return {AT_FDCWD, HasSlash(name) ? name : nullptr, moves};
}

// Counts the arguments from `first` to the null; with `into`, puts them there.
size_t Collect(const char* first, va_list* list, char** into) {
  size_t count = 0;
  for (const char* next = first;; next = va_arg(*list, const char*)) {
    // exec's parameters lack a const for the sake of old C.
    if (into != nullptr) into[count] = const_cast<char*>(next);
    if (next == nullptr) return count;
    ++count;
  }
}

// Makes the call with the arguments from `first` to the null, on the stack. The list then stands
// behind the null.
template <typename Call>
int WithArguments(const char* first, va_list* list, Call call) {
  va_list counted;
  va_copy(counted, *list);
  const size_t count = Collect(first, &counted, nullptr);
  va_end(counted);
  auto** arguments = static_cast<char**>(alloca((count + 1) * sizeof(char*)));
  Collect(first, list, arguments);
  return call(arguments);
}

// posix_spawn(), or pidfd_spawn(), which has a descriptor in the pid's place.
using SpawnCall = decltype(real.posix_spawn);

// `next`: of `real`, where it may be missing.
int Spawn(const SpawnCall& next, int* child, const char* path,
          const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
          char* const* arguments, char* const* environment) {
  if (real.posix_spawn == nullptr) ResolveReal();  // from another library's constructor
  if (next == nullptr) return ENOSYS;
  // There are actions that change the folder.
  return Keep(environment, {AT_FDCWD, path, actions != nullptr}, E2BIG, [&](char* const* kept) {
    return next(child, path, actions, attributes, arguments, kept);
  });
}

// The same of a name that is searched for.
int SpawnFound(const SpawnCall& next, int* child, const char* file,
               const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes,
               char* const* arguments, char* const* environment) {
  if (real.posix_spawn == nullptr) ResolveReal();
  if (next == nullptr) return ENOSYS;
  char room[PATH_MAX];
  const char* const name = Search(file, room, sizeof(room));
  return Keep(environment, Found(name, actions != nullptr), E2BIG, [&](char* const* kept) {
    return next(child, name, actions, attributes, arguments, kept);
  });
}

}  // namespace

int HookExecve(const char* path, char* const* arguments, char* const* environment) {
  return Keep(environment, {AT_FDCWD, path}, -1, [&](char* const* kept) {
    if (real.execve != nullptr) return real.execve(path, arguments, kept);
    return static_cast<int>(SystemCall(SYS_execve, path, arguments, kept));
  });
}

int HookExecveat(int folder, const char* path, char* const* arguments, char* const* environment,
                 int flags) {
  // Without AT_EMPTY_PATH an empty one is the kernel's to refuse.
  return Keep(environment, {folder, path}, -1, [&](char* const* kept) {
    if (real.execveat != nullptr) return real.execveat(folder, path, arguments, kept, flags);
    return static_cast<int>(SystemCall(SYS_execveat, folder, path, arguments, kept, flags));
  });
}

int HookFexecve(int fd, char* const* arguments, char* const* environment) LATCHKEY_HOOK(fexecve);
int HookFexecve(int fd, char* const* arguments, char* const* environment) {
  return Keep(environment, {fd, ""}, -1, [&](char* const* kept) {
    if (real.fexecve != nullptr) return real.fexecve(fd, arguments, kept);
    return static_cast<int>(SystemCall(SYS_execveat, fd, "", arguments, kept, AT_EMPTY_PATH));
  });
}

int HookExecvpe(const char* file, char* const* arguments, char* const* environment)
    LATCHKEY_HOOK(execvpe);
int HookExecvpe(const char* file, char* const* arguments, char* const* environment) {
  if (real.execvpe == nullptr) ResolveReal();  // from another library's constructor
  if (real.execvpe == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  char room[PATH_MAX];
  const char* const name = Search(file, room, sizeof(room));
  return Keep(environment, Found(name), -1,
              [&](char* const* kept) { return real.execvpe(name, arguments, kept); });
}

int HookExecv(const char* path, char* const* arguments) LATCHKEY_HOOK(execv);
int HookExecv(const char* path, char* const* arguments) {
  return HookExecve(path, arguments, environ);
}

int HookExecvp(const char* file, char* const* arguments) LATCHKEY_HOOK(execvp);
int HookExecvp(const char* file, char* const* arguments) {
  return HookExecvpe(file, arguments, environ);
}

int HookExecl(const char* path, const char* argument, ...) LATCHKEY_HOOK(execl);
int HookExecl(const char* path, const char* argument, ...) {
  va_list list;
  va_start(list, argument);
  const int result = WithArguments(argument, &list, [&](char* const* arguments) {
    return HookExecve(path, arguments, environ);
  });
  va_end(list);
  return result;
}

int HookExecle(const char* path, const char* argument, ...) LATCHKEY_HOOK(execle);
int HookExecle(const char* path, const char* argument, ...) {
  va_list list;
  va_start(list, argument);
  const int result = WithArguments(argument, &list, [&](char* const* arguments) {
    return HookExecve(path, arguments, va_arg(list, char* const*));
  });
  va_end(list);
  return result;
}

int HookExeclp(const char* file, const char* argument, ...) LATCHKEY_HOOK(execlp);
int HookExeclp(const char* file, const char* argument, ...) {
  va_list list;
  va_start(list, argument);
  const int result = WithArguments(argument, &list, [&](char* const* arguments) {
    return HookExecvpe(file, arguments, environ);
  });
  va_end(list);
  return result;
}

int HookPosixSpawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                   const posix_spawnattr_t* attributes, char* const* arguments,
                   char* const* environment) LATCHKEY_HOOK(posix_spawn);
int HookPosixSpawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                   const posix_spawnattr_t* attributes, char* const* arguments,
                   char* const* environment) {
  return Spawn(real.posix_spawn, pid, path, actions, attributes, arguments, environment);
}

int HookPosixSpawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                    const posix_spawnattr_t* attributes, char* const* arguments,
                    char* const* environment) LATCHKEY_HOOK(posix_spawnp);
int HookPosixSpawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                    const posix_spawnattr_t* attributes, char* const* arguments,
                    char* const* environment) {
  return SpawnFound(real.posix_spawnp, pid, file, actions, attributes, arguments, environment);
}

// The same, since glibc 2.39; before it, and on a kernel that cannot, they say ENOSYS.
int HookPidfdSpawn(int* pidfd, const char* path, const posix_spawn_file_actions_t* actions,
                   const posix_spawnattr_t* attributes, char* const* arguments,
                   char* const* environment) LATCHKEY_HOOK(pidfd_spawn);
int HookPidfdSpawn(int* pidfd, const char* path, const posix_spawn_file_actions_t* actions,
                   const posix_spawnattr_t* attributes, char* const* arguments,
                   char* const* environment) {
  return Spawn(real.pidfd_spawn, pidfd, path, actions, attributes, arguments, environment);
}

int HookPidfdSpawnp(int* pidfd, const char* file, const posix_spawn_file_actions_t* actions,
                    const posix_spawnattr_t* attributes, char* const* arguments,
                    char* const* environment) LATCHKEY_HOOK(pidfd_spawnp);
int HookPidfdSpawnp(int* pidfd, const char* file, const posix_spawn_file_actions_t* actions,
                    const posix_spawnattr_t* attributes, char* const* arguments,
                    char* const* environment) {
  return SpawnFound(real.pidfd_spawnp, pidfd, file, actions, attributes, arguments, environment);
}

}  // namespace latchkey::shim
