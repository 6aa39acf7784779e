#include "tools/latchkeyd/keymgr/vici/traffic.h"

#include <catch2/catch.hpp>

namespace latchkey::broker::vici {
namespace {

std::vector<Selector> Of(std::vector<std::string> local, std::vector<std::string> remote,
                         Mode mode = Mode::kTunnel) {
  ChildSa child;
  child.mode = mode;
  child.local_ts = std::move(local);
  child.remote_ts = std::move(remote);
  return Traffic(child);
}

TEST_CASE("A tunnel's traffic, from our side to the peer's") {
  const std::vector<Selector> traffic = Of({"192.168.1.1/32"}, {"192.168.2.0/24[tcp/5432]"});
  REQUIRE(traffic.size() == 1);
  const Selector& selector = traffic[0];
  CHECK(selector.family == Family::kV4);
  CHECK(selector.source == Prefix::Parse("192.168.1.1").value());
  CHECK(selector.destination == Prefix::Parse("192.168.2.0/24").value());
  CHECK(selector.protocol == 6);
  CHECK(selector.source_mask == 0);
  CHECK(selector.destination_port == 5432);
  CHECK(selector.destination_mask == 0xffff);
}

TEST_CASE("Each selector with each of the peer's, of one family and one protocol") {
  CHECK(Of({"10.1.0.0/16", "fd01::/64"}, {"10.2.0.0/16", "10.3.0.0/16", "fd02::/64"}).size() == 3);
  CHECK(Of({"10.1.0.0/16[tcp]"}, {"10.2.0.0/16[udp]"}).empty());
  CHECK(Of({"0.0.0.0/0"}, {"0.0.0.0/0"}).size() == 1);
  const std::vector<Selector> range = Of({"10.0.0.0..10.0.0.255"}, {"10.2.0.1..10.2.0.1"});
  REQUIRE(range.size() == 1);
  CHECK(range[0].source == Prefix::Parse("10.0.0.0/24").value());
  CHECK(range[0].destination == Prefix::Parse("10.2.0.1").value());
}

TEST_CASE("Half of what a child is for is nothing") {
  CHECK(Of({"10.1.0.0/16"}, {"10.2.0.0/16", "10.0.0.1..10.0.0.9"}).empty());
  CHECK(Of({"10.1.0.0/16"}, {"10.2.0.0/16", "10.3.0.0/16[tcp/80-90]"}).empty());
  CHECK(Of({"10.1.0.0/16"}, {"10.2.0.0/16", "dynamic"}).empty());
  CHECK(Of({"10.1.0.0/16"}, {"10.2.0.0/16", "nonsense"}).empty());
  CHECK(Of({}, {"10.2.0.0/16"}).empty());
  CHECK(Of({"10.1.0.0/16"}, {"10.2.0.0/16"}, Mode::kTransport).empty());
}

}  // namespace
}  // namespace latchkey::broker::vici
