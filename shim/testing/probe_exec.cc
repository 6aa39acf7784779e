#include "shim/testing/probe_exec.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

// The program itself, and how it is called to print its environment.
std::string self = std::filesystem::read_symlink("/proc/self/exe");
char name[] = "probe";
char verb[] = "environment";
char* arguments[] = {name, verb, nullptr};
char* none[] = {nullptr};

size_t Entries(char* const* environment) {
  size_t count = 0;
  while (environment != nullptr && environment[count] != nullptr) ++count;
  return count;
}

void Environment() {
  const char* preload = std::getenv("LD_PRELOAD");
  Print("shim", preload != nullptr && std::strstr(preload, "liblatchkey.so") != nullptr);
  Print("entries", static_cast<long>(Entries(environ)));
}

void Clear() { environ = none; }

// Has PATH lead here, and nothing else in the environment.
void ClearButPath() {
  Clear();
  setenv("PATH", std::filesystem::path(self).parent_path().c_str(), 1);
}

// Waits for a child and passes its status on.
void Await(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  Print("status", status);
}

void Spawn() {
  pid_t child = 0;
  Print("spawn", posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments, none));
  Await(child);
}

void SpawnInPath() {
  ClearButPath();
  pid_t child = 0;
  Print("spawn", posix_spawnp(&child, name, nullptr, nullptr, arguments, none));
  Await(child);
}

// By a call of glibc 2.39 or later, which this was not built with, perhaps.
void SpawnWithPidfd(const char* call, const char* what) {
  const auto spawn = reinterpret_cast<decltype(&posix_spawn)>(dlsym(RTLD_DEFAULT, call));
  int child = -1;
  const int error = spawn != nullptr ? spawn(&child, what, nullptr, nullptr, arguments, none) : -1;
  Print("spawn", error);
  if (error != 0) return;
  siginfo_t ended{};
  Outcome("wait", waitid(P_PIDFD, static_cast<id_t>(child), &ended, WEXITED));
  Print("status", ended.si_status);
}

// By a relative path, which an action makes another file's, perhaps.
void SpawnElsewhere() {
  const std::filesystem::path path(self);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, path.parent_path().c_str());
  pid_t child = 0;
  Print("spawn", posix_spawn(&child, "./probe", &actions, nullptr, arguments, none));
  posix_spawn_file_actions_destroy(&actions);
  Await(child);
}

void AfterVfork() {
  char** const before = environ;
  const pid_t child = vfork();
  if (child == 0) {
    execve(self.c_str(), arguments, none);
    _exit(99);
  }
  Await(child);
  Print("same", environ == before);
  Outcome("connect", Connect(Tcp()));
}

void ByDescriptor() { fexecve(open(self.c_str(), O_RDONLY | O_CLOEXEC), arguments, none); }

void ByFolder() {
  const std::filesystem::path path(self);
  const int folder = open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  execveat(folder, name, arguments, none, 0);
}

// What fails: with the errno it has without the shim, and nothing is changed by it.
void Fail() {
  const std::vector<char*> before(environ, environ + Entries(environ));
  Outcome("missing", execve("/nonexistent", arguments, none));
  Outcome("folder", execv("/tmp", arguments));
  Outcome("search", execlp("nonexistent", name, nullptr));
  Outcome("descriptor", fexecve(-1, arguments, none));
  auto* const bad = reinterpret_cast<char**>(uintptr_t{64});
  Outcome("bad-environment", execve(self.c_str(), arguments, bad));
  Outcome("bad-path", execve(reinterpret_cast<const char*>(bad), arguments, none));
  char* entries[] = {reinterpret_cast<char*>(bad), nullptr};
  Outcome("bad-entry", execve(self.c_str(), arguments, entries));
  pid_t child = 0;
  Print("spawn", posix_spawn(&child, "/nonexistent", nullptr, nullptr, arguments, none));
  Print("same",
        std::equal(before.begin(), before.end(), environ) && environ[before.size()] == nullptr);
}

void TooLarge() {
  char entry[] = "A=1";
  std::vector<char*> large(9000, entry);
  large.push_back(nullptr);
  Outcome("exec", execve(self.c_str(), arguments, large.data()));
  pid_t child = 0;
  Print("spawn", posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments, large.data()));
}

// Says how long the shim makes an exec with 100 variables, none of them ours: the best of many.
void Time() {
  using Clock = std::chrono::steady_clock;
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) texts.push_back("LONG_NAME_" + std::to_string(i) + "=value");
  std::vector<char*> environment;
  for (std::string& text : texts) environment.push_back(text.data());
  environment.push_back(nullptr);
  const auto best = [&environment](int (*call)(const char*, char* const*, char* const*)) {
    auto shortest = Clock::duration::max();
    for (int i = 0; i < 500; ++i) {
      const Clock::time_point begin = Clock::now();
      call("/nonexistent", arguments, environment.data());
      shortest = std::min(shortest, Clock::now() - begin);
    }
    return shortest;
  };
  const auto hooked = best(execve);
  const auto bare = best([](const char* path, char* const* argv, char* const* envp) {
    long result = SYS_execve;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(path), "S"(argv), "d"(envp)
                     : "rcx", "r11", "memory");
    return static_cast<int>(result);
  });
  std::fprintf(stderr, "exec adds %ld ns\n",
               static_cast<long>(std::chrono::nanoseconds(hooked - bare).count()));
  Print("slow", hooked - bare >= std::chrono::microseconds(20));
}

}  // namespace

std::map<std::string, std::function<void()>> ExecProbes() {
  return {
      {"environment", Environment},
      {"exec-execve", [] { execve(self.c_str(), arguments, none); }},
      {"exec-null", [] { execve(self.c_str(), arguments, nullptr); }},
      {"exec-execv",
       [] {
         Clear();
         execv(self.c_str(), arguments);
       }},
      {"exec-execl",
       [] {
         Clear();
         execl(self.c_str(), name, verb, nullptr);
       }},
      {"exec-execle", [] { execle(self.c_str(), name, verb, nullptr, none); }},
      {"exec-execvp",
       [] {
         ClearButPath();
         execvp(name, arguments);
       }},
      {"exec-execlp",
       [] {
         ClearButPath();
         execlp(name, name, verb, nullptr);
       }},
      {"exec-execvpe",
       [] {
         ClearButPath();
         execvpe(name, arguments, none);
       }},
      {"exec-fexecve", ByDescriptor},
      {"exec-execveat", ByFolder},
      {"exec-syscall", [] { syscall(SYS_execve, self.c_str(), arguments, none); }},
      {"exec-syscall-at",
       [] { syscall(SYS_execveat, AT_FDCWD, self.c_str(), arguments, none, 0); }},
      {"exec-env", [] { execlp("env", "env", "-i", self.c_str(), verb, nullptr); }},
      {"exec-spawn", Spawn},
      {"exec-spawnp", SpawnInPath},
      {"exec-pidfd-spawn", [] { SpawnWithPidfd("pidfd_spawn", self.c_str()); }},
      {"exec-pidfd-spawnp",
       [] {
         ClearButPath();
         SpawnWithPidfd("pidfd_spawnp", name);
       }},
      {"exec-spawn-elsewhere", SpawnElsewhere},
      {"exec-vfork", AfterVfork},
      {"exec-fails", Fail},
      {"exec-large", TooLarge},
      {"exec-time", Time},
  };
}

}  // namespace latchkey::testing
