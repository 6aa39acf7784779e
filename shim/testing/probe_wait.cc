#include "shim/testing/probe_wait.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

std::atomic<int> handled{0};

void Handle(int number, int flags) {
  struct sigaction action {};
  action.sa_handler = [](int) { ++handled; };
  action.sa_flags = flags;
  sigaction(number, &action, nullptr);
}

// Sends SIGALRM: not by setitimer(), which would take the test's own alarm() away.
void Alarm(int first_ms, int interval_ms) {
  static timer_t timer = [] {
    timer_t made{};
    timer_create(CLOCK_MONOTONIC, nullptr, &made);
    return made;
  }();
  const itimerspec times{{0, interval_ms * 1'000'000}, {0, first_ms * 1'000'000}};
  timer_settime(timer, 0, &times, nullptr);
}

int SocketError(int fd) {
  int error = -1;
  socklen_t length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return error;
}

void PrintTimeout(int fd) {
  timeval value{};
  socklen_t length = sizeof(value);
  getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, &length);
  Print("timeout", value.tv_sec * 1000 + value.tv_usec / 1000);
}

// What a careful program does after EINTR and EINPROGRESS (POSIX).
void Follow(int fd) {
  pollfd watched{fd, POLLOUT, 0};
  Print("poll", poll(&watched, 1, 10'000));
  Print("events", watched.revents);
  Print("error", SocketError(fd));
}

}  // namespace

void ProbeNonblocking() {
  const int late = Tcp();
  fcntl(late, F_SETFL, O_NONBLOCK);
  for (const int fd : {Tcp(SOCK_NONBLOCK), late, Tcp()}) {
    Outcome("connect", Connect(fd));
    Pause();
  }
}

void ProbeLarval() {
  const int fd = Tcp(SOCK_NONBLOCK);
  const int poller = epoll_create1(0);
  epoll_event wanted{};
  wanted.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP;
  Outcome("connect", Connect(fd));
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted);
  epoll_event event{};
  Print("quiet", epoll_wait(poller, &event, 1, 100));
  char octet = 0;
  Outcome("early", read(fd, &octet, 1));
  Pause();
  int woken = 0;
  // A SYN that was dropped is sent again after a second.
  auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(5000);
  while (std::chrono::steady_clock::now() < end) {
    if (epoll_wait(poller, &event, 1, 50) <= 0) continue;
    ++woken;
    end = std::chrono::steady_clock::now() + std::chrono::milliseconds(250);
  }
  Print("woken", woken);
  Print("events", static_cast<int>(event.events));
  Print("error", SocketError(fd));
  Print("error", SocketError(fd));
  iovec part{&octet, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Outcome("connect", Connect(fd));
  Outcome("connect", Connect(fd));
  Outcome("read", read(fd, &octet, 1));
  Outcome("readv", readv(fd, &part, 1));
  Outcome("recv", recv(fd, &octet, 1, 0));
  Outcome("recvmsg", recvmsg(fd, &message, 0));
  Outcome("send", send(fd, &octet, 1, MSG_NOSIGNAL));
  Outcome("sendmsg", sendmsg(fd, &message, MSG_NOSIGNAL));
  signal(SIGPIPE, SIG_IGN);
  Outcome("write", write(fd, &octet, 1));
  sockaddr_in peer{};
  socklen_t length = sizeof(peer);
  Outcome("getpeername", getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length));
}

void ProbeInterrupted() {
  Handle(SIGALRM, 0);
  Alarm(100, 0);
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  Print("handled", handled);
  Print("flags", fcntl(fd, F_GETFL) & O_NONBLOCK);
  PrintTimeout(fd);
  Follow(fd);
  Outcome("again", Connect(fd));
  Outcome("once more", Connect(fd));
}

void ProbeInterruptedLate() {
  // As the handlers of a daemon: one of each kind.
  Handle(SIGALRM, SA_RESTART);
  Handle(SIGUSR1, 0);
  Alarm(5, 5);
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  Alarm(0, 0);
  Print("handled", handled > 3);
  Outcome("again", Connect(fd));
}

void ProbeRestarted() {
  Handle(SIGALRM, SA_RESTART);
  Alarm(5, 5);
  const int fd = Tcp();
  errno = 77;
  const int result = Connect(fd);
  Print("errno", errno);
  Outcome("connect", result);
  Alarm(0, 0);
  Print("handled", handled > 3);
}

void ProbeSendTimeout() {
  const int fd = Tcp();
  const timeval value{0, 400'000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value));
  const auto start = std::chrono::steady_clock::now();
  Outcome("connect", Connect(fd));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  Print("in time", taken.count() > 0.35 && taken.count() < 0.65);
  PrintTimeout(fd);
}

void ProbeTimeoutRestarted() {
  Handle(SIGALRM, SA_RESTART);
  Alarm(100, 0);
  const int fd = Tcp();
  const timeval value{10, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value));
  Outcome("connect", Connect(fd));
  PrintTimeout(fd);
}

void ProbeWaitTogether() {
  const int before = OpenCount();
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&good] {
      const int fd = Tcp();
      if (Connect(fd) == 0) ++good;
      close(fd);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Print("good", good);
  Print("few more", OpenCount() - before < 8);
}

void ProbeCancelConnect() {
  const int before = OpenCount();
  static int fd = Tcp();
  pthread_t thread{};
  const auto make = [](void*) -> void* {
    Connect(fd);
    return nullptr;
  };
  if (pthread_create(&thread, nullptr, make, nullptr) != 0) std::exit(3);
  Pause();
  Print("cancel", pthread_cancel(thread));
  Pause();
  void* ended_with = nullptr;
  Print("join", pthread_join(thread, &ended_with));
  Print("cancelled", ended_with == PTHREAD_CANCELED);
  close(fd);
  const int later = Tcp();
  Outcome("later", Connect(later));
  close(later);
  Print("more", OpenCount() - before);
}

void ProbeWaitFork() {
  Handle(SIGUSR1, 0);
  int result = -1;
  int error = 0;
  std::thread thread([&] {
    result = Connect(Tcp());
    error = errno;
  });
  Pause();
  std::fflush(stdout);
  int held[2];
  int told[2];
  if (pipe(held) != 0 || pipe(told) != 0) std::exit(3);
  const pid_t child = fork();
  int child_error = -1;
  if (child == 0) {
    close(held[1]);
    child_error = Connect(Tcp()) == 0 ? 0 : errno;
    char octet;
    const bool good = write(told[1], &child_error, sizeof(child_error)) > 0;
    _exit(good && read(held[0], &octet, 1) == 0 ? 0 : 1);
  }
  if (read(told[0], &child_error, sizeof(child_error)) < 0) std::exit(3);
  Print("child", child_error);
  Pause();
  pthread_kill(thread.native_handle(), SIGUSR1);
  thread.join();
  Print("thread", result < 0 ? error : 0);
  Pause();
  close(held[1]);
  int status = 0;
  waitpid(child, &status, 0);
  Print("status", status);
}

void ProbeWaitDup() {
  char name[] = "/tmp/latchkey-probe.XXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  if (write(file, "text", 4) != 4 || lseek(file, 0, SEEK_SET) != 0) std::exit(3);
  int result = -1;
  const int fd = Tcp();
  std::thread thread([&] { result = Connect(fd); });
  Pause();
  // Those that are open now: a connection that the shim makes meanwhile is to be left alone.
  std::vector<int> open;
  for (int other = fd + 1; other < 1100; ++other) {
    if (fcntl(other, F_GETFD) >= 0) open.push_back(other);
  }
  for (const int other : open) dup2(file, other);
  Pause();
  thread.join();
  Print("connect", result);
  Print("read", lseek(file, 0, SEEK_CUR));
  Print("octets", lseek(file, 0, SEEK_END));
}

}  // namespace latchkey::testing
