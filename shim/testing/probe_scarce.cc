#include "shim/testing/probe_scarce.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

constexpr int kLow = 64;      // a limit beneath the numbers that the shim likes best
constexpr int kUsual = 1024;  // what a login gets
constexpr int kOutput = 50;   // keeps standard output where that is closed

void Limit(rlim_t most) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) std::exit(3);
  limit.rlim_cur = std::min(most, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) std::exit(3);
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

// Becomes the probe of that name, with what is open now.
void Become(const char* name) {
  char number[8];
  std::snprintf(number, sizeof(number), "%u", port);
  execl("/proc/self/exe", "probe", name, number, nullptr);
  std::exit(4);
}

void StartAtLimit() {
  Limit(kLow);
  close(STDIN_FILENO);
  Become("scarce-work");
}

void StartWithoutStreams() {
  Limit(kUsual);
  if (dup2(STDOUT_FILENO, kOutput) != kOutput) std::exit(3);
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) close(fd);
  Become("scarce-work");
}

// Two connections; says which streams were closed before and after, and what else is open.
void Work() {
  int closed[2] = {};
  int outcome[2] = {};
  const int before = OpenCount();
  for (int i = 0; i < 2; ++i) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) closed[i] += IsOpen(fd) ? 0 : 1;
    const int fd = Tcp();
    outcome[i] = Connect(fd) == 0 ? 0 : errno;
    close(fd);
  }
  const int more = OpenCount() - before;
  if (IsOpen(kOutput)) {
    dup2(kOutput, STDOUT_FILENO);
    close(kOutput);
  }
  for (int i = 0; i < 2; ++i) {
    Print("closed", closed[i]);
    Print("connect", outcome[i]);
  }
  Print("more", more);
  for (int fd = STDERR_FILENO + 1; fd < kUsual; ++fd) {
    if (IsOpen(fd)) Print("open", fd);
  }
}

// A child, which has to open a connection to the broker of its own: with no number free, with none
// but a standard stream's, and with enough.
void Child() {
  Outcome("parent", Connect(Tcp()));
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = Tcp();
    const int free = dup(fd);
    close(free);
    Limit(static_cast<rlim_t>(free));
    const int none = Connect(fd) == 0 ? 0 : errno;
    close(STDERR_FILENO);
    const int stream = Connect(fd) == 0 ? 0 : errno;
    const bool still_closed = !IsOpen(STDERR_FILENO);
    Limit(kUsual);
    Print("none", none);
    Print("stream", stream);
    Print("closed", still_closed);
    Outcome("enough", Connect(fd));
    std::fflush(stdout);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  Print("child", status);
}

}  // namespace

std::map<std::string, std::function<void()>> ScarceProbes() {
  return {
      {"scarce-limit", StartAtLimit},
      {"scarce-streams", StartWithoutStreams},
      {"scarce-work", Work},
      {"scarce-child", Child},
  };
}

}  // namespace latchkey::testing
