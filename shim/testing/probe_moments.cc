#include "shim/testing/probe_moments.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

std::atomic<int> handled{0};
std::atomic<int> bad{0};

// Connects from a handler, a thousand times a second, on top of connects and everything else.
void Signals() {
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = [](int) {
    const int before = errno;
    const int fd = Tcp();
    if (Connect(fd) != 0 && errno != EADDRNOTAVAIL) ++bad;
    if (dup2(fd, fd) != fd) ++bad;
    close(fd);
    errno = before;
    ++handled;
  };
  sigaction(SIGALRM, &action, nullptr);
  timer_t timer{};
  timer_create(CLOCK_MONOTONIC, nullptr, &timer);
  const itimerspec times{{0, 1'000'000}, {0, 1'000'000}};
  timer_settime(timer, 0, &times, nullptr);
  const int before = OpenCount();
  for (int i = 0; handled < 100; ++i) {
    const int fd = Tcp();
    errno = 77;
    if (Connect(fd) != 0) {
      ++bad;
    } else if (errno != 77) {
      ++bad;
    }
    close(fd);
    if (i % 16 != 0) continue;
    const pid_t child = fork();
    if (child == 0) _exit(Connect(Tcp()) == 0 ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) ++bad;
  }
  const itimerspec none{};
  timer_settime(timer, 0, &none, nullptr);
  Print("bad", bad);
  Print("few more", OpenCount() - before <= 2);
}

// What was done before any constructor, the shim's too, had run.
struct Early {
  bool done;
  int closed;
  int local;
  int away;
  int listened;
  int duplicate;
  int streams;
};
Early early;

void AtOnce(int argc, char** argv, char** /*environment*/) {
  if (argc < 3 || std::strcmp(argv[1], "moment-early") != 0) return;
  const auto outcome = [](long result) { return result < 0 ? errno : 0; };
  early.done = true;
  early.closed = outcome(close(-1));
  const int fd = Tcp();
  early.local = outcome(Connect(fd, static_cast<uint16_t>(std::atoi(argv[2]))));
  early.away = outcome(ConnectTo(Tcp(SOCK_NONBLOCK), Blackhole()));
  early.listened = outcome(listen(Tcp(), 1));
  early.duplicate =
      outcome(dup2(fd, fd + 20)) + outcome(close(fd)) + outcome(syscall(SYS_close, fd + 20));
  early.streams = outcome(std::fclose(fdopen(Tcp(), "r")));
}
// preinit: not even the constructors of shared objects have run.
__attribute__((section(".preinit_array"), used)) void (*const at_once)(int, char**,
                                                                       char**) = AtOnce;

void PrintEarly() {
  Print("done", early.done);
  Print("close", early.closed);
  Print("here", early.local);
  Print("away", early.away);
  Print("listen", early.listened);
  Print("dup", early.duplicate);
  Print("fclose", early.streams);
  Outcome("connect", Connect(Tcp()));
}

bool say_goodbye = false;

void Late() { say_goodbye = true; }

// As late as a program can be.
__attribute__((destructor(101))) void Goodbye() {
  if (!say_goodbye) return;
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  Outcome("close", close(fd));
  std::fflush(stdout);
}

}  // namespace

std::map<std::string, std::function<void()>> MomentProbes() {
  return {
      {"moment-signals", Signals},
      {"moment-early", PrintEarly},
      {"moment-late", Late},
  };
}

}  // namespace latchkey::testing
