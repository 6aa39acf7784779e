#include "tools/latchkeyd/server/offload.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <semaphore>
#include <thread>

namespace latchkey::broker {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Waits up to ten seconds for what should be so soon.
template <typename Condition>
bool Soon(Condition condition) {
  const auto deadline = Clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

TEST_CASE("Every job is done, whoever's it is") {
  Offload offload;
  auto done = std::make_shared<std::atomic<int>>(0);
  for (uint32_t i = 0; i < 5000; ++i) offload.Run(i % 7, [done] { ++*done; });
  CHECK(Soon([&] { return *done == 5000; }));
  for (uint32_t uid = 0; uid < 7; ++uid) {
    CHECK(Soon([&] { return offload.Pending(uid) == 0; }));
  }
}

TEST_CASE("A job that comes alone, after a pause, is done too") {
  Offload offload;
  for (int i = 1; i <= 50; ++i) {
    auto done = std::make_shared<std::atomic<bool>>(false);
    offload.Run(1, [done] { *done = true; });
    REQUIRE(Soon([&] { return done->load(); }));
    std::this_thread::sleep_for(milliseconds(i % 3));
  }
}

TEST_CASE("One user's jobs that stall hold up his own alone") {
  auto gate = std::make_shared<std::counting_semaphore<>>(0);
  Offload offload;
  for (int i = 0; i < 40; ++i) offload.Run(1000, [gate] { gate->acquire(); });
  CHECK(offload.Pending(1000) == 40);
  auto done = std::make_shared<std::atomic<int>>(0);
  for (int i = 0; i < 100; ++i) offload.Run(1001, [done] { ++*done; });
  CHECK(Soon([&] { return *done == 100; }));
  offload.Run(1000, [done] { ++*done; });
  std::this_thread::sleep_for(milliseconds(20));
  CHECK(*done == 100);
  gate->release(40);
  CHECK(Soon([&] { return *done == 101; }));
  CHECK(Soon([&] { return offload.Pending(1000) == 0; }));
}

TEST_CASE("Closing a socket that lingers takes no time here") {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(listen(listener, 1) == 0);
  socklen_t length = sizeof(address);
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int sender = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(sender, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  const int receiver = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  REQUIRE(receiver >= 0);
  char block[65536] = {};
  while (send(sender, block, sizeof(block), MSG_DONTWAIT) > 0) {
  }
  const linger two_seconds{1, 2};
  REQUIRE(setsockopt(sender, SOL_SOCKET, SO_LINGER, &two_seconds, sizeof(two_seconds)) == 0);

  Offload offload;
  const auto start = Clock::now();
  offload.Close(0, sender);
  CHECK(Clock::now() - start < milliseconds(1000));
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  offload.Close(0, ends[1]);
  char octet = 0;
  CHECK(read(ends[0], &octet, 1) == 0);  // closed beside the one that waits
  CHECK(Clock::now() - start < milliseconds(1500));
  close(ends[0]);
  close(receiver);
  close(listener);
  CHECK(Soon([&] { return offload.Pending(0) == 0; }));
}

TEST_CASE("An end does not wait for jobs that do") {
  auto gate = std::make_shared<std::counting_semaphore<>>(0);
  {
    Offload offload;
    offload.Run(1, [gate] { gate->acquire(); });
  }
  gate->release();
}

}  // namespace
}  // namespace latchkey::broker
