#include "tools/latchkeyd/latch/binding.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <set>
#include <string>

#include "shim/wire/messages.h"

namespace latchkey::broker {
namespace {

std::string Hex(const std::string& octets) {
  std::string hex;
  for (const char octet : octets) {
    char two[3];
    std::snprintf(two, sizeof(two), "%02x", static_cast<unsigned char>(octet));
    hex += two;
  }
  return hex;
}

TEST_CASE("The formula: SHA-256 of each key, one XOR the other, behind the type's name") {
  // printf a | sha256sum: ca978112ca1b..., printf b | sha256sum: 3e23e8160039...
  const std::string binding = ChannelBinding("a", "b");
  CHECK(binding.substr(0, 23) == "ipsec-end-point-sha256:");
  CHECK(binding.size() == 23 + 32);
  CHECK(Hex(binding.substr(23)) ==
        "f4b46904ca22e480c94b7ed6fec26d792c3b95f89ca8623872f3992b7a724826");
}

TEST_CASE("The same at both ends") { CHECK(ChannelBinding("a", "b") == ChannelBinding("b", "a")); }

TEST_CASE("Different for every other pair") {
  std::set<std::string> all;
  for (int i = 0; i < 60; ++i) {
    for (int j = 0; j < i; ++j) all.insert(ChannelBinding(std::to_string(i), std::to_string(j)));
  }
  CHECK(all.size() == 60 * 59 / 2);
}

TEST_CASE("None where it would say nothing") {
  CHECK(ChannelBinding("a", "a").empty());
  CHECK(ChannelBinding("", "a").empty());
  CHECK(ChannelBinding("a", "").empty());
}

TEST_CASE("It fits a message") { CHECK(ChannelBinding("a", "b").size() <= wire::kBindingSize); }

}  // namespace
}  // namespace latchkey::broker
