#include "tools/latchkeyd/kernel/prompt_close.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <string>

namespace latchkey::broker {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

// A connection over loopback whose first end has more to send than the other takes.
struct Stuffed {
  Stuffed() {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(listen(listener, 1) == 0);
    REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    sender = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(sender, reinterpret_cast<sockaddr*>(&address), length) == 0);
    receiver = accept(listener, nullptr, nullptr);
    close(listener);
    const std::string data(1 << 20, 'x');
    while (send(sender, data.data(), data.size(), MSG_DONTWAIT) > 0) {
    }
  }
  ~Stuffed() { close(receiver); }
  void Linger(int seconds) const {
    const linger value{1, seconds};
    REQUIRE(setsockopt(sender, SOL_SOCKET, SO_LINGER, &value, sizeof(value)) == 0);
  }
  int sender = -1;
  int receiver = -1;
};

TEST_CASE("Closes a TCP socket that does not linger, at once") {
  PromptClose closer;
  const Stuffed plain;
  CHECK(closer.Close(plain.sender));
  CHECK_FALSE(IsOpen(plain.sender));
  const Stuffed aborting;
  aborting.Linger(0);
  CHECK(closer.Close(aborting.sender));
  CHECK_FALSE(IsOpen(aborting.sender));
}

TEST_CASE("Closes a UDP socket, which lingers for nobody") {
  PromptClose closer;
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const linger lingering{1, 60};
  REQUIRE(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lingering, sizeof(lingering)) == 0);
  CHECK(closer.Close(fd));
  CHECK_FALSE(IsOpen(fd));
}

TEST_CASE("Leaves open what could wait, and what is neither TCP nor UDP") {
  PromptClose closer;
  const Stuffed lingering;
  lingering.Linger(60);
  CHECK_FALSE(closer.Close(lingering.sender));
  CHECK(IsOpen(lingering.sender));
  lingering.Linger(0);
  close(lingering.sender);
  const int others[] = {socket(AF_UNIX, SOCK_STREAM, 0), socket(AF_UNIX, SOCK_DGRAM, 0),
                        open("/dev/null", O_RDONLY)};
  for (const int fd : others) {
    CHECK_FALSE(closer.Close(fd));
    CHECK(IsOpen(fd));
    close(fd);
  }
  CHECK_FALSE(closer.Close(-1));
}

TEST_CASE("A wait that a program sneaked in is interrupted") {
  PromptClose closer;
  const Stuffed lingering;
  lingering.Linger(60);
  const auto start = std::chrono::steady_clock::now();
  CHECK(closer.CloseAnyway(lingering.sender));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
  CHECK_FALSE(IsOpen(lingering.sender));
}

}  // namespace
}  // namespace latchkey::broker
