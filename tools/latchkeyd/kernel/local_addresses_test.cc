#include "tools/latchkeyd/kernel/local_addresses.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

bool SetLoopbackAddress(const char* address) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo:1", sizeof(request.ifr_name) - 1);
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  inet_pton(AF_INET, address, &v4.sin_addr);
  std::memcpy(&request.ifr_addr, &v4, sizeof(v4));
  return ioctl(fd.get(), SIOCSIFADDR, &request) == 0;
}

TEST_CASE("Addresses that come and go are noticed") {
  TestNetns netns;
  Result<LocalAddresses> local = LocalAddresses::Open();
  REQUIRE(local);
  const Address first = *Address::Parse("192.0.2.1");
  const Address second = *Address::Parse("192.0.2.2");
  CHECK_FALSE(local->Contains(first));
  REQUIRE(SetLoopbackAddress("192.0.2.1"));
  CHECK(local->Contains(first));
  REQUIRE(SetLoopbackAddress("192.0.2.2"));
  CHECK_FALSE(local->Contains(first));
  CHECK(local->Contains(second));
}

TEST_CASE("Loopback is always local") {
  TestNetns netns(/*loopback=*/false);
  Result<LocalAddresses> local = LocalAddresses::Open();
  REQUIRE(local);
  CHECK(local->Contains(*Address::Parse("127.0.0.1")));
  CHECK(local->Contains(*Address::Parse("127.9.9.9")));
  CHECK(local->Contains(*Address::Parse("::1")));
  CHECK_FALSE(local->Contains(Address{}));
  CHECK_FALSE(local->Contains(*Address::Parse("10.0.0.1")));
}

}  // namespace
}  // namespace latchkey::broker
