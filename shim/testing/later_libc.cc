// What glibc has since 2.39, for a test on an older one: preloaded behind the shim.
#include <dlfcn.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace {

using Call = decltype(&posix_spawn);

// libc's own, which the shim does not see, or a scrubbed environment would be completed here.
int Spawn(const char* call, int* pidfd, const char* path, const posix_spawn_file_actions_t* actions,
          const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment) {
  void* const libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  const auto spawn = libc != nullptr ? reinterpret_cast<Call>(dlsym(libc, call)) : nullptr;
  if (spawn == nullptr) return ENOSYS;
  pid_t pid = 0;
  const int error = spawn(&pid, path, actions, attributes, arguments, environment);
  if (error == 0) *pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  return error;
}

}  // namespace

extern "C" {

int pidfd_spawn(int* pidfd, const char* path, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const* arguments,
                char* const* environment) {
  return Spawn("posix_spawn", pidfd, path, actions, attributes, arguments, environment);
}

int pidfd_spawnp(int* pidfd, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const* arguments,
                 char* const* environment) {
  return Spawn("posix_spawnp", pidfd, file, actions, attributes, arguments, environment);
}

}  // extern "C"
