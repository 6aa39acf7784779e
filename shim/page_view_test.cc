#include "shim/page_view.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <memory>
#include <random>

namespace latchkey::shim {
namespace {

using wire::Settle;

sockaddr_storage Make(const char* address, uint16_t port, socklen_t& length) {
  sockaddr_storage storage{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    length = sizeof(*v4);
  } else {
    REQUIRE(inet_pton(AF_INET6, address, &v6->sin6_addr) == 1);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    length = sizeof(*v6);
  }
  return storage;
}

wire::Endpoint Read(const char* address, uint16_t port = 443) {
  socklen_t length = 0;
  const sockaddr_storage storage = Make(address, port, length);
  wire::Endpoint endpoint;
  REQUIRE(ReadEndpoint(reinterpret_cast<const sockaddr*>(&storage), length, endpoint));
  return endpoint;
}

void AddRule(wire::Page& page, const char* prefix, uint8_t bits, uint16_t low, uint16_t high,
             Settle settle) {
  wire::PageRule& rule = page.rules[page.rule_count++];
  rule = wire::PageRule{};
  if (prefix != nullptr) {
    const wire::Endpoint base = Read(prefix);
    rule.family = static_cast<uint8_t>(base.family);
    std::memcpy(rule.remote, base.address, sizeof(rule.remote));
  }
  rule.prefix = bits;
  rule.port_low = low;
  rule.port_high = high;
  rule.settle = settle;
}

std::unique_ptr<wire::Page> MakePage() { return std::make_unique<wire::Page>(); }

TEST_CASE("what passes whatever its protocol passes by each: 20,000 random pages") {
  std::mt19937 dice(7);
  const auto page = MakePage();
  const wire::Endpoint remote = Read("10.9.0.1", 5);
  int all = 0;
  int wrong = 0;
  for (int i = 0; i < 20'000; ++i) {
    page->rule_count = 0;
    page->otherwise = static_cast<Settle>(dice() % 4);
    for (uint32_t count = dice() % 5; count > 0; --count) {
      const auto low = static_cast<uint16_t>(dice() % 8);
      AddRule(*page, nullptr, 0, low, static_cast<uint16_t>(low + dice() % 8),
              static_cast<Settle>(dice() % 3 == 0 ? dice() % 4 : 1));
      const uint8_t protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP};
      page->rules[page->rule_count - 1].protocol = protocols[dice() % 3];
    }
    if (!BypassesAll(*page, remote)) continue;
    ++all;
    for (const uint8_t protocol : {IPPROTO_TCP, IPPROTO_UDP}) {
      if (SettleConnect(*page, remote, protocol) != Settle::kBypass) ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(all > 2'000);
  page->rule_count = 0;
  page->otherwise = Settle::kBypass;
  CHECK(BypassesAll(*page, remote));
  page->generation = 1;
  CHECK_FALSE(BypassesAll(*page, remote));
}

TEST_CASE("addresses are read in host order, v4-mapped ones as IPv4") {
  CHECK(Read("10.9.0.1", 8080).port == 8080);
  CHECK(Read("::ffff:10.9.0.1").family == AF_INET);
  CHECK(std::memcmp(Read("::ffff:10.9.0.1").address, Read("10.9.0.1").address, 16) == 0);
  CHECK(Read("fd00::1").family == AF_INET6);
  CHECK(IsLoopback(Read("127.3.2.1")));
  CHECK(IsLoopback(Read("::1")));
  CHECK(IsLoopback(Read("::ffff:127.0.0.1")));
  CHECK_FALSE(IsLoopback(Read("::2")));
  CHECK_FALSE(IsLoopback(Read("128.0.0.1")));
}

TEST_CASE("what is too short for its family, or of another, is no endpoint") {
  for (const char* address : {"10.9.0.1", "fd00::1"}) {
    socklen_t length = 0;
    const sockaddr_storage storage = Make(address, 1, length);
    wire::Endpoint endpoint;
    const socklen_t shortest = address[0] == 'f' ? 24 : 16;
    for (socklen_t size = 0; size <= length; ++size) {
      INFO(address << " " << size);
      CHECK(ReadEndpoint(reinterpret_cast<const sockaddr*>(&storage), size, endpoint) ==
            (size >= shortest));
    }
  }
  sockaddr_storage unix_address{};
  unix_address.ss_family = AF_UNIX;
  wire::Endpoint endpoint;
  CHECK_FALSE(ReadEndpoint(reinterpret_cast<const sockaddr*>(&unix_address), sizeof(unix_address),
                           endpoint));
  CHECK_FALSE(ReadEndpoint(nullptr, 16, endpoint));
}

TEST_CASE("the first rule that matches settles it; while they are rewritten, the broker does") {
  const auto page = MakePage();
  page->otherwise = Settle::kDiscard;
  AddRule(*page, "10.1.0.0", 16, 0, 65535, Settle::kBypass);
  AddRule(*page, "10.0.0.0", 9, 443, 445, Settle::kAsk);
  AddRule(*page, "fd00::", 7, 0, 65535, Settle::kBypass);
  AddRule(*page, nullptr, 0, 53, 53, Settle::kBypass);
  CHECK(SettleConnect(*page, Read("10.1.2.3", 443)) == Settle::kBypass);
  CHECK(SettleConnect(*page, Read("::ffff:10.1.2.3", 443)) == Settle::kBypass);
  CHECK(SettleConnect(*page, Read("10.2.2.3", 443)) == Settle::kAsk);
  CHECK(SettleConnect(*page, Read("10.2.2.3", 446)) == Settle::kDiscard);
  CHECK(SettleConnect(*page, Read("10.128.2.3", 443)) == Settle::kDiscard);
  CHECK(SettleConnect(*page, Read("fc00::1")) == Settle::kBypass);
  CHECK(SettleConnect(*page, Read("fe00::1")) == Settle::kDiscard);
  CHECK(SettleConnect(*page, Read("fe00::1", 53)) == Settle::kBypass);
  page->generation = 1;
  CHECK(SettleConnect(*page, Read("10.1.2.3")) == Settle::kAsk);
}

wire::Reason ReasonFor(uint64_t cookie) {
  return static_cast<wire::Reason>(cookie % wire::kReasonCount);
}

TEST_CASE("sockets in trouble are found past others and past removed ones, and no others are") {
  const auto page = MakePage();
  std::map<uint64_t, wire::Trouble> model;
  std::mt19937_64 random(3);
  for (int i = 0; i < 4000; ++i) {
    const uint64_t cookie = random() | 1;
    uint32_t slot = wire::SlotOf(cookie);
    while (page->slots[slot].cookie != 0) slot = (slot + 1) & (wire::kPageSlots - 1);
    const bool removed = i % 3 == 0;
    page->slots[slot].cookie = removed ? wire::kTombstone : cookie;
    page->slots[slot].reason = static_cast<uint32_t>(ReasonFor(cookie));
    page->slots[slot].trouble = i % 2 == 0 ? wire::Trouble::kBroken : wire::Trouble::kNoSa;
    model[cookie] = removed ? wire::Trouble::kFree : page->slots[slot].trouble.load();
  }
  for (const auto& [cookie, trouble] : model) {
    const Ailment found = FindTrouble(*page, cookie);
    CHECK(found.trouble == trouble);
    if (trouble != wire::Trouble::kFree) CHECK(found.reason == ReasonFor(cookie));
  }
  CHECK(FindTrouble(*page, 2).trouble == wire::Trouble::kFree);
  for (wire::PageSlot& slot : page->slots) slot.cookie = wire::kTombstone;
  CHECK(FindTrouble(*page, 2).trouble == wire::Trouble::kFree);  // a full table ends the search too
}

}  // namespace
}  // namespace latchkey::shim
