#include "tools/latchkey/private_broker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <fstream>
#include <vector>

#include "shim/wire/raw_syscall.h"
#include "tools/latchkey/siblings.h"

namespace latchkey::tool {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kStartTime{10};

std::string ErrorText(const std::string& step) { return step + ": " + std::strerror(errno); }

// Makes the folder, or takes one that is there when it is ours and nobody else may write to it:
// what lies in it is where the program's session will be.
Outcome<void> MakeFolder(const std::string& path, mode_t mode) {
  struct stat status;
  if (mkdir(path.c_str(), mode) == 0) {
    // The umask is the caller's; other users reach their sockets through these folders.
    if (chmod(path.c_str(), mode) != 0) return Refuse(kExitLauncher, ErrorText("chmod " + path));
  } else if (errno != EEXIST) {
    return Refuse(kExitLauncher, ErrorText("private broker: mkdir " + path));
  }
  if (lstat(path.c_str(), &status) != 0) return Refuse(kExitLauncher, ErrorText("stat " + path));
  if (!S_ISDIR(status.st_mode) || (status.st_uid != geteuid() && status.st_uid != 0) ||
      (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Refuse(kExitLauncher, "private broker: " + path + ": others may write to it");
  }
  return {};
}

// Opens as open(2) does, never as descriptor 0, 1 or 2: a caller may have closed those, and they
// are what BecomeBroker fills.
UniqueFd OpenHigh(const char* path, int flags) {
  const UniqueFd fd(open(path, flags | O_CLOEXEC, 0600));
  return fd ? UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)) : UniqueFd();
}

// Becomes latchkeyd. Runs between fork and exec: nothing here allocates.
[[noreturn]] void BecomeBroker(char* const* arguments, int null, int log) {
  constexpr char kFailed[] = "latchkeyd: cannot be executed\n";
  char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  // Neither LD_PRELOAD nor anything else of the caller's reaches a privileged daemon.
  char* environment[] = {path, nullptr};
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  umask(022);
  if (chdir("/") == 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(log, 2) == 2 &&
      close_range(3, UINT_MAX, 0) == 0) {
    // Not by libc's: should this launcher be latched itself, the shim would follow.
    wire::RawSyscall(SYS_execve, reinterpret_cast<long>(arguments[0]),
                     reinterpret_cast<long>(arguments), reinterpret_cast<long>(environment));
  }
  if (write(2, kFailed, sizeof(kFailed) - 1) < 0) _exit(1);
  _exit(kExitNotFound);
}

// Forks twice, so that the broker is nobody's child whom the program could wait for. Returns its
// process id, or -1.
pid_t Spawn(std::vector<std::string>& arguments, int null, int log) {
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return -1;
  const UniqueFd read_end(report[0]);
  UniqueFd write_end(report[1]);
  const pid_t middle = fork();
  if (middle < 0) return -1;
  if (middle == 0) {
    if (setsid() < 0) _exit(1);
    const pid_t broker = fork();
    if (broker == 0) BecomeBroker(pointers.data(), null, log);
    const bool told = write(report[1], &broker, sizeof(broker)) == sizeof(broker);
    _exit(broker > 0 && told ? 0 : 1);
  }
  write_end.Reset();
  pid_t broker = -1;
  ssize_t count;
  do {
    count = read(read_end.get(), &broker, sizeof(broker));
  } while (count < 0 && errno == EINTR);
  while (waitpid(middle, nullptr, 0) < 0 && errno == EINTR) {
  }
  return count == sizeof(broker) ? broker : -1;
}

std::string LastLine(const std::string& path) {
  std::ifstream log(path);
  std::string line, last;
  while (std::getline(log, line)) {
    if (!line.empty()) last = line;
  }
  std::erase_if(last, [](char c) { return static_cast<unsigned char>(c) < ' '; });
  return last.empty() ? "it said nothing" : last;
}

}  // namespace

Outcome<PrivateBroker> StartPrivateBroker() {
  auto program = FindBroker();
  if (!program) return std::unexpected(program.error());
  const std::string base = std::string(kPrivateFolder) + "/" + std::to_string(getpid());
  const std::string socket = base + ".sock";
  const std::string log_name = base + "/log";
  for (const auto& [path, mode] : {std::pair<std::string, mode_t>{"/run/latchkey", 0755},
                                   {kPrivateFolder, 0755},
                                   {base, 0700}}) {
    if (auto made = MakeFolder(path, mode); !made) return std::unexpected(made.error());
  }
  const UniqueFd null = OpenHigh("/dev/null", O_RDWR);
  const UniqueFd log =
      OpenHigh(log_name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW);
  if (!null || !log) return Refuse(kExitLauncher, ErrorText("private broker: open " + log_name));

  std::vector<std::string> arguments{*program, "--private", "--socket", socket, "--run-dir", base};
  const pid_t pid = Spawn(arguments, null.get(), log.get());
  if (pid <= 0) return Refuse(kExitLauncher, ErrorText("private broker: fork"));
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));

  const auto deadline = Clock::now() + kStartTime;
  int pause = 1;
  while (true) {
    if (auto client = Client::Connect(socket); client) {
      return PrivateBroker{socket, std::move(*client)};
    }
    pollfd gone{process.get(), POLLIN, 0};
    const bool dead = !process || poll(&gone, 1, pause) > 0;
    if (dead) {
      return Refuse(kExitLauncher, "private broker: " + LastLine(log_name) + " (" + log_name + ")");
    }
    if (Clock::now() > deadline) {
      syscall(SYS_pidfd_send_signal, process.get(), SIGTERM, nullptr, 0);
      return Refuse(kExitLauncher, "private broker: not ready after 10 s: " + LastLine(log_name) +
                                       " (" + log_name + ")");
    }
    pause = std::min(pause * 2, 50);
  }
}

}  // namespace latchkey::tool
