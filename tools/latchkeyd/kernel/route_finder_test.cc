#include "tools/latchkeyd/kernel/route_finder.h"

#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

const Address kAnyV4 = Address::AnyOf(Family::kV4);
const Address kAnyV6 = Address::AnyOf(Family::kV6);

void Run(const std::string& command) {
  INFO(command);
  REQUIRE(std::system(command.c_str()) == 0);  // NOLINT(concurrency-mt-unsafe): one thread
}

TEST_CASE("What goes to loopback comes back by it") {
  TestNetns netns;
  RouteFinder finder;
  const Route back{"lo", 1, /*stays=*/true};
  const UniqueFd fd = TcpSocket(AF_INET);
  for (const int each : {-1, fd.get()}) {
    CHECK(finder.Find(each, kAnyV4, *Address::Parse("127.0.0.1"), 0x8000'0000) == back);
    CHECK(finder.Find(each, *Address::Parse("127.0.0.1"), *Address::Parse("127.0.0.2"), 0) == back);
    CHECK(finder.Find(each, kAnyV4, *Address::Parse("10.9.0.2"), 0) == std::nullopt);
  }
  CHECK(finder.Find(-1, Address{}, Address{}, 0) == std::nullopt);
  CHECK(finder.Find(-1, kAnyV6, *Address::Parse("::1"), 0) == back);
}

TEST_CASE("An address of the host's is where its routes lead") {
  TestNetns netns;
  Run("ip link add wan type veth peer name far && ip link set far up && ip link set wan up && "
      "ip address add 10.9.0.1/24 dev wan && ip address add fd00::1/64 dev wan nodad");
  RouteFinder finder;
  const Address own[] = {*Address::Parse("10.9.0.1"), *Address::Parse("fd00::1")};
  const Address other[] = {*Address::Parse("10.9.0.3"), *Address::Parse("fd00::3")};
  const Address any[] = {kAnyV4, kAnyV6};
  for (const int family : {0, 1}) {
    const auto back = finder.Find(-1, any[family], own[family], 0);
    REQUIRE(back);
    CHECK(*back == Route{"lo", 1, /*stays=*/true});
    const auto away = finder.Find(-1, own[family], other[family], 0);
    REQUIRE(away);
    CHECK(away->device == "wan");
    CHECK_FALSE(away->stays);
  }
  // IPv6 keeps the addresses of a device that is down, and has no local routes to them.
  Run("ip link add spare type veth peer name idle && ip link set idle up && echo 1 "
      ">/proc/sys/net/ipv6/conf/spare/keep_addr_on_down && "
      "ip link set spare up && ip address add fd00::3/128 dev spare nodad");
  CHECK(finder.Find(-1, kAnyV6, other[1], 0)->stays);
  Run("ip link set spare down");
  const auto away = finder.Find(-1, kAnyV6, other[1], 0);
  REQUIRE(away);
  CHECK(away->device == "wan");
  CHECK_FALSE(away->stays);
}

}  // namespace
}  // namespace latchkey::broker
