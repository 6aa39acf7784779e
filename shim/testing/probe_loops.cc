#include "shim/testing/probe_loops.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

constexpr int kQuietMs = 150;
constexpr int kPatienceMs = 10'000;

// Waits for one socket. `writing`: until it is writable, else until it is readable. Returns false
// when nothing came in time.
class Waiter {
 public:
  virtual ~Waiter() = default;
  virtual bool Wait(int fd, bool writing, int milliseconds) = 0;
};

class Poll : public Waiter {
 public:
  bool Wait(int fd, bool writing, int milliseconds) override {
    pollfd watched{fd, static_cast<short>(writing ? POLLOUT : POLLIN), 0};
    return poll(&watched, 1, milliseconds) == 1;
  }
};

class Select : public Waiter {
 public:
  bool Wait(int fd, bool writing, int milliseconds) override {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    timeval time_out{milliseconds / 1000, milliseconds % 1000 * 1000L};
    return select(fd + 1, writing ? nullptr : &set, writing ? &set : nullptr, nullptr, &time_out) ==
           1;
  }
};

class Epoll : public Waiter {
 public:
  explicit Epoll(uint32_t edge) : edge_(edge) {}
  bool Wait(int fd, bool writing, int milliseconds) override {
    epoll_event wanted{};
    wanted.events = edge_ | (writing ? EPOLLOUT : EPOLLIN);
    if (fd != fd_) epoll_ctl(poller_, EPOLL_CTL_ADD, fd, &wanted);
    // Edge-triggered it is told once what to look for, as such loops do.
    if (fd == fd_ && edge_ == 0) epoll_ctl(poller_, EPOLL_CTL_MOD, fd, &wanted);
    if (fd == fd_ && edge_ != 0 && writing_ != writing) {
      epoll_ctl(poller_, EPOLL_CTL_MOD, fd, &wanted);
    }
    fd_ = fd;
    writing_ = writing;
    return epoll_wait(poller_, &wanted, 1, milliseconds) == 1;
  }

 private:
  uint32_t edge_;
  int poller_ = epoll_create1(EPOLL_CLOEXEC);
  int fd_ = -1;
  bool writing_ = false;
};

int SocketError(int fd) {
  int error = -1;
  socklen_t length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return error;
}

// Connects, and reads to the end, as an event loop does: what was woken for nothing is counted.
void Loop(Waiter& waiter) {
  const int fd = Tcp(SOCK_NONBLOCK);
  Outcome("connect", Connect(fd));
  const bool early = waiter.Wait(fd, true, kQuietMs);
  Print("early", early);
  Pause();
  int woken = early ? 1 : 0;
  int idle = 0;
  const auto wait = [&](bool writing) {
    if (!waiter.Wait(fd, writing, kPatienceMs)) std::exit(5);
    ++woken;
  };
  if (!early) wait(true);
  const int error = SocketError(fd);
  Print("error", error);
  std::fflush(stdout);
  char text[8];
  while (error == 0) {
    const ssize_t size = read(fd, text, sizeof(text));
    if (size < 0 && errno == EAGAIN) {
      ++idle;
      wait(false);
      continue;
    }
    Outcome("read", size);
    if (size <= 0) break;
  }
  // For the connection, and at the most for its octets and for its end: each wait had its reason.
  Print("spun", woken > 3 || idle > 2);
  close(fd);
}

template <typename Made, typename... Arguments>
std::function<void()> With(Arguments... arguments) {
  return [=] {
    Made waiter(arguments...);
    Loop(waiter);
  };
}

}  // namespace

std::map<std::string, std::function<void()>> LoopProbes() {
  return {
      {"loop-poll", With<Poll>()},
      {"loop-select", With<Select>()},
      {"loop-epoll", With<Epoll>(uint32_t{0})},
      {"loop-epoll-edge", With<Epoll>(static_cast<uint32_t>(EPOLLET))},
  };
}

}  // namespace latchkey::testing
