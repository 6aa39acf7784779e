// What the maps hold after regions have changed.
#include <bpf/bpf.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_filter.h"
#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/test_netns.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

using Need = DatagramRegion::Need;

constexpr uint32_t kMask = 0x7fff0000;

DatagramRegion Region(const std::string& prefix, Need need, uint16_t port = 0) {
  return {Prefix::Parse(prefix).value(), port, need};
}

DatagramRegion Numbered(uint32_t number, uint16_t port, Need need = Need::kPass) {
  const uint32_t octets = htonl(0x0a000000 + number);
  return {{Address::FromV4(&octets), 32}, port, need};
}

// A map of the filter's, found among our own descriptors.
UniqueFd MapNamed(const std::string& name) {
  for (int fd = 3; fd < 256; ++fd) {
    bpf_map_info info{};
    uint32_t length = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0 || name != info.name) continue;
    return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  }
  FAIL("no map " << name);
  return UniqueFd();
}

template <typename Key, typename Value>
std::vector<std::pair<Key, Value>> All(const UniqueFd& map) {
  std::vector<std::pair<Key, Value>> all;
  Key key{};
  const Key* last = nullptr;
  while (bpf_map_get_next_key(map.get(), last, &key) == 0) {
    Value value{};
    REQUIRE(bpf_map_lookup_elem(map.get(), &key, &value) == 0);
    all.emplace_back(key, value);
    last = &all.back().first;
  }
  return all;
}

using Octets = std::array<uint8_t, 16>;
using Exact = std::map<std::tuple<Octets, uint16_t>, uint32_t>;        // address, port; need
using Prefixes = std::map<std::tuple<Octets, uint32_t>, std::string>;  // address, bits; need, but

struct Content {
  Exact exact;
  Prefixes prefixes;
  bool operator==(const Content&) const = default;
};

std::string Told(uint32_t need, uint16_t low, uint16_t high) {
  return std::to_string(need) + " but " + std::to_string(low) + "-" + std::to_string(high);
}

Content ContentOf(const std::vector<DatagramRegion>& regions) {
  Content content;
  for (const DatagramRegion& each : regions) {
    uint32_t need = each.need == Need::kPass ? LATCHKEY_PASS : LATCHKEY_DROP;
    if (each.need == Need::kTag) need = LATCHKEY_TAG;
    if (each.same_host) need |= LATCHKEY_SAME_HOST;
    const Octets octets = std::to_array<const uint8_t, 16>(
        *reinterpret_cast<const uint8_t(*)[16]>(each.remote.base.octets.data()));
    if (each.port != 0) {
      content.exact[{octets, each.port}] = need;
    } else {
      const PortRange but = each.but.empty() ? PortRange{1, 0} : each.but[0];
      content.prefixes[{octets, LATCHKEY_REGION_BITS + each.remote.length}] =
          Told(need, but.low, but.high);
    }
  }
  return content;
}

struct Case {
  TestNetns netns;
  DatagramFilter filter{{kMask, {}}};
  UniqueFd exact = MapNamed("exact");
  UniqueFd regions = MapNamed("regions");
  UniqueFd held = MapNamed("held");

  std::optional<uint32_t> Generation(uint64_t cookie) const {
    latchkey_held value{};
    if (bpf_map_lookup_elem(held.get(), &cookie, &value) != 0) return std::nullopt;
    return value.generation;
  }
  // By cookie. Whatever is of no generation that counts fails the test.
  std::map<uint64_t, Content> Contents() const {
    std::map<uint64_t, Content> contents;
    for (const auto& [key, need] : All<latchkey_exact_key, uint32_t>(exact)) {
      CHECK(Generation(key.cookie) == key.generation);
      contents[key.cookie].exact[{std::to_array(key.address), key.port}] = need;
    }
    for (const auto& [key, value] : All<latchkey_region_key, latchkey_region>(regions)) {
      CHECK(Generation(key.cookie) == key.generation);
      contents[key.cookie].prefixes[{std::to_array(key.address), key.prefix_bits}] =
          Told(value.need, value.but[0].low, value.but[0].high);
    }
    return contents;
  }
};

TEST_CASE("A region of one port comes and goes and leaves the others alone") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  std::vector<DatagramRegion> regions = {Region("0.0.0.0/0", Need::kTag),
                                         Region("127.0.0.1", Need::kPass, peer.port())};
  REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  const std::optional<uint32_t> generation = c.Generation(us.cookie());
  REQUIRE(generation);
  for (uint32_t i = 0; i < 1000; ++i) {
    regions.push_back(Numbered(i, 5000));
    REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  }
  CHECK(c.Contents() == std::map<uint64_t, Content>{{us.cookie(), ContentOf(regions)}});
  peer.Send(us, "127.0.0.1", "x");
  CHECK(us.Take() == "x");
  regions.erase(regions.begin() + 1);
  REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  peer.Send(us, "127.0.0.1", "x");
  CHECK(us.Take() == "-");
  CHECK(c.Generation(us.cookie()) == generation);
  // One that says something else is another matter, and so is a prefix.
  regions.back().need = Need::kDrop;
  REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  CHECK(c.Generation(us.cookie()) == *generation + 1);
  regions[0].need = Need::kPass;
  REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  CHECK(c.Generation(us.cookie()) == *generation + 2);
  regions[0].but = {{53, 53}};
  REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  CHECK(c.Generation(us.cookie()) == *generation + 3);
  CHECK(c.Contents() == std::map<uint64_t, Content>{{us.cookie(), ContentOf(regions)}});
}

TEST_CASE("Whatever regions follow each other, the maps hold the last ones of each socket") {
  Case c;
  const TestUdp sockets[] = {TestUdp("0.0.0.0"), TestUdp("::", /*v6_socket=*/true)};
  std::map<uint64_t, std::vector<DatagramRegion>> model;
  std::mt19937 random(5660);
  const auto below = [&](uint32_t most) { return static_cast<uint32_t>(random() % most); };
  const auto any = [&] { return Need{static_cast<uint8_t>(below(3))}; };
  int small = 0;
  for (int step = 0; step < 600; ++step) {
    const TestUdp& socket = sockets[below(2)];
    const uint64_t cookie = socket.cookie();
    std::vector<DatagramRegion> regions = model[cookie];
    const uint32_t what = below(20);
    if (what == 0) {
      c.filter.Forget(cookie);
      model[cookie].clear();
      CHECK_FALSE(c.Generation(cookie));
    } else {
      if (what == 1) regions.clear();
      if (what == 2) std::ranges::shuffle(regions, random);
      if (what == 3) {
        regions.push_back(Region(below(2) == 0 ? "10.0.0.0/8" : "fd00::/16", any()));
        regions.back().same_host = below(2) == 0;
        if (regions.back().need == Need::kPass && below(2) == 0) regions.back().but = {{53, 80}};
      }
      for (uint32_t i = below(4); what > 3 && i > 0; --i) {
        if (regions.empty() || below(2) == 0) {
          regions.push_back(
              Numbered(below(8), 5000 + below(2), below(8) == 0 ? any() : Need::kPass));
        } else {
          regions.erase(regions.begin() + below(regions.size()));
        }
      }
      const std::optional<uint32_t> before = c.Generation(cookie);
      REQUIRE(c.filter.Filter(socket.fd(), cookie, regions));
      model[cookie] = regions;
      if (before && c.Generation(cookie) == before) ++small;
    }
    std::map<uint64_t, Content> wanted;
    for (const auto& [each, all] : model) {
      if (!all.empty()) wanted[each] = ContentOf(all);
    }
    INFO("step " << step);
    REQUIRE(c.Contents() == wanted);
  }
  CHECK(small > 100);
}

TEST_CASE("What cannot come or go leaves all as it was") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp other("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  std::vector<DatagramRegion> many;
  for (uint32_t i = 0; i < LATCHKEY_MOST_EXACT - 4; ++i) many.push_back(Numbered(i, 5000));
  REQUIRE(c.filter.Filter(other.fd(), other.cookie(), many));
  const std::vector<DatagramRegion> regions = {Region("127.0.0.0/8", Need::kTag),
                                               Region("127.0.0.1", Need::kPass, peer.port())};
  REQUIRE(c.filter.Filter(us.fd(), us.cookie(), regions));
  const std::optional<uint32_t> generation = c.Generation(us.cookie());
  const auto same = [&] {
    CHECK(c.Generation(us.cookie()) == generation);
    CHECK(c.Contents()[us.cookie()] == ContentOf(regions));
    peer.Send(us, "127.0.0.1", "x");
    CHECK(us.Take() == "x");
  };
  // There is room for three.
  std::vector<DatagramRegion> more = {regions[0]};
  for (uint16_t i = 0; i < 4; ++i) more.push_back(Numbered(1, 6000 + i));
  Result<void> done = c.filter.Filter(us.fd(), us.cookie(), more);
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kLimit);
  same();
  more.pop_back();
  CHECK(c.filter.Filter(us.fd(), us.cookie(), more));
  CHECK(c.filter.Filter(us.fd(), us.cookie(), regions));
  same();
  // Nobody can change the map any more.
  REQUIRE(bpf_map_freeze(c.exact.get()) == 0);
  for (const auto& wanted : {more, {regions[0]}, {regions[0], regions[1], more[1]}}) {
    done = c.filter.Filter(us.fd(), us.cookie(), wanted);
    REQUIRE_FALSE(done);
    CHECK(done.error().reason == Reason::kKernelRefused);
    same();
  }
}

}  // namespace
}  // namespace latchkey::broker
