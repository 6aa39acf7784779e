// The engine on the running kernel: whom a held UDP socket sends to in clear makes way for others.
//
// Its rules are about ports, so each address and port is asked about by itself, as the shim does
// where a send says EPERM. Time is this program's own: CLOCK_MONOTONIC plus what a test lets pass.
#include <sys/syscall.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <utility>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/real_kernel.h"
#include "tools/latchkeyd/kernel/test_netns.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace {

long ahead_s = 0;

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && clock == CLOCK_MONOTONIC) time->tv_sec += ahead_s;
  return static_cast<int>(result);
}

namespace latchkey::broker {
namespace {

// Loopback knows no SPD.
struct Device {
  TestNetns netns;
  Device() {
    if (std::system("ip link add veth0 type veth peer name veth1 && ip link set veth0 up && "
                    "ip link set veth1 up && ip address add 10.9.0.1/24 dev veth0 && "
                    "ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev veth0") != 0) {
      throw std::runtime_error("no device");
    }
  }
};

struct Here {
  Device device;
  std::unique_ptr<RealKernel> kernel = std::move(RealKernel::Open().value());
  FakeKeyManager keys;
  FakeObserver observer;
  Engine engine{*kernel, keys, observer, {}};
  Client client;
  TestUdp socket{"10.9.0.1"};

  Here() {
    client.session = 1;
    client.policy = ClientPolicy();
    client.pid = getpid();
    REQUIRE(engine.Start({}));
  }

  Answer Ask(uint16_t port) {
    return engine.Peer(client, socket.fd(), socket.fd(), At("10.9.0.2", port));
  }
  // 0 or the errno.
  int Send(uint16_t port) const {
    sockaddr_storage name{};
    const socklen_t length = ToSockaddr(At("10.9.0.2", port), false, 0, &name);
    const ssize_t sent =
        sendto(socket.fd(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&name), length);
    return sent == 1 ? 0 : errno;
  }
  // As the shim sends.
  bool Sends(uint16_t port) {
    const int error = Send(port);
    if (error != EPERM) return error == 0;
    return Ask(port).verdict == wire::Verdict::kLatched && Send(port) == 0;
  }
};

TEST_CASE("Those in clear who have been idle make way, and no send fails for it") {
  Here here;
  REQUIRE(here.Ask(1000).verdict == wire::Verdict::kLatched);
  CHECK(here.Send(1000) == 0);
  CHECK(here.Send(1001) == EPERM);
  for (uint16_t port = 1001; port < 2024; ++port) REQUIRE(here.Sends(port));
  CHECK(here.Ask(3000).reason == Reason::kLimit);
  CHECK(here.Send(3000) == EPERM);
  CHECK(here.Send(1000) == 0);
  ahead_s += 61;
  // Three times a quarter of them; the first one's turn is the first.
  for (uint16_t port = 10'000; port < 10'600; ++port) {
    REQUIRE(here.Sends(port));
    REQUIRE(here.Sends(1000));
  }
  CHECK(here.observer.warnings == 3);
  CHECK(here.Send(1001) == EPERM);
  CHECK(here.Sends(1001));
  CHECK(here.Send(10'000) == 0);
  CHECK(here.Send(2023) == 0);  // the last one that was asked about in time
}

}  // namespace
}  // namespace latchkey::broker
