#include "shim/testing/greeter.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace latchkey::testing {
namespace {

constexpr int kBacklog = 512;

void Must(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::abort();
}

}  // namespace

Greeter::Greeter(uint16_t port)
    : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      poller_(epoll_create1(EPOLL_CLOEXEC)),
      stop_(eventfd(0, EFD_CLOEXEC)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  socklen_t length = sizeof(address);
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  const int one = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  Must(bind(listener_, name, length) == 0 && listen(listener_, kBacklog) == 0, "listen");
  Must(getsockname(listener_, name, &length) == 0, "getsockname");
  port_ = ntohs(address.sin_port);
  for (const int fd : {listener_, stop_}) {
    epoll_event wanted{.events = EPOLLIN, .data = {.fd = fd}};
    Must(epoll_ctl(poller_, EPOLL_CTL_ADD, fd, &wanted) == 0, "epoll_ctl");
  }
  thread_ = std::thread(&Greeter::Serve, this);
}

Greeter::~Greeter() {
  const uint64_t one = 1;
  Must(write(stop_, &one, sizeof(one)) == sizeof(one), "stop");
  thread_.join();
  for (const int fd : {listener_, poller_, stop_}) close(fd);
}

void Greeter::AwaitNobody() const {
  for (int i = 0; i < 1000 && clients() != 0; ++i) usleep(10'000);
}

void Greeter::Serve() {
  std::array<epoll_event, 64> events{};
  for (;;) {
    const int count = epoll_wait(poller_, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == stop_) return;
      if (fd != listener_) {
        // They send nothing: it has gone.
        --clients_;
        close(fd);
        continue;
      }
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (client < 0) continue;
      send(client, "hello", 5, MSG_NOSIGNAL);
      epoll_event wanted{.events = EPOLLIN | EPOLLRDHUP, .data = {.fd = client}};
      ++clients_;
      Must(epoll_ctl(poller_, EPOLL_CTL_ADD, client, &wanted) == 0, "epoll_ctl");
    }
  }
}

}  // namespace latchkey::testing
