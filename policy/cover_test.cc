// What earlier rules leave to a later one.
#include "policy/cover.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "policy/parse.h"

namespace latchkey::policy {
namespace {

using Places = std::vector<size_t>;

// Whether the last of `rules` is covered, and by which.
Places Covered(const std::string& rules, size_t steps = 100'000) {
  const auto policy = Parse("latchkey = 1\napplication = \"a\"\n" + rules, "p");
  REQUIRE(policy);
  return CoveredBy(policy->rules, policy->rules.size() - 1, steps);
}

std::string Bypass(const std::string& keys) {
  return "[[rule]]\naction = \"bypass\"\n" + keys + "\n";
}

TEST_CASE("By one rule") {
  CHECK(Covered(Bypass("") + Bypass("")) == Places{0});
  CHECK(Covered(Bypass("remote = [\"10.0.0.0/8\"]") +
                Bypass("remote = [\"10.1.0.0/16\", \"10.2.0.1\"]\nremote_port = [80]")) ==
        Places{0});
  CHECK(Covered(Bypass("remote = [\"10.0.0.0/8\"]") +
                Bypass("remote = [\"10.1.0.0/16\", \"11.0.0.1\"]"))
            .empty());
  CHECK(Covered(Bypass("direction = \"out\"") + Bypass("")).empty());
  CHECK(Covered(Bypass("protocol = \"tcp\"") + Bypass("")).empty());
  // A port that is not known yet is in no range.
  CHECK(Covered(Bypass("local_port = [\"1-65535\"]") + Bypass("")).empty());
  CHECK(Covered(Bypass("local_port = [\"1-65535\"]") + Bypass("local_port = [80]")) == Places{0});
  CHECK(Covered(Bypass("remote = [\"0.0.0.0/0\", \"::/0\"]") + Bypass("")) == Places{0});
  // The one that is enough is named, whatever others take.
  CHECK(Covered(Bypass("remote_port = [80]") + Bypass("remote = [\"0.0.0.0/0\", \"::/0\"]") +
                Bypass("")) == Places{1});
}

TEST_CASE("By several together") {
  CHECK(Covered(Bypass("remote = [\"0.0.0.0/0\"]") + Bypass("remote = [\"::/0\"]") + Bypass("")) ==
        Places{0, 1});
  CHECK(Covered(Bypass("direction = \"out\"") + Bypass("direction = \"in\"") + Bypass("")) ==
        Places{0, 1});
  CHECK(Covered(Bypass("protocol = \"tcp\"") + Bypass("protocol = \"udp\"") + Bypass("")) ==
        Places{0, 1});
  CHECK(Covered(Bypass("remote = [\"10.0.0.0/9\"]") + Bypass("remote_port = [1]") +
                Bypass("remote = [\"10.128.0.0/9\"]") + Bypass("remote = [\"10.0.0.0/8\"]")) ==
        Places{0, 1, 2});
  CHECK(Covered(Bypass("remote_port = [\"1-100\"]") + Bypass("remote_port = [\"101-200\"]") +
                Bypass("remote_port = [\"50-150\"]")) == Places{0, 1});
  CHECK(Covered(Bypass("remote_port = [\"1-100\"]") + Bypass("remote_port = [\"102-200\"]") +
                Bypass("remote_port = [\"50-150\"]"))
            .empty());
  CHECK(Covered(Bypass("direction = \"out\"\nremote = [\"0.0.0.0/0\"]") +
                Bypass("direction = \"in\"\nremote = [\"::/0\"]") + Bypass(""))
            .empty());
}

TEST_CASE("What would take too long to say is not said") {
  CHECK(Covered(Bypass("") + Bypass(""), 1).empty());
}

TEST_CASE("At random: a rule is covered exactly where no flow is left to it") {
  std::mt19937 random(5660);
  const auto one_of = [&random](const std::vector<std::string>& words) {
    return words[random() % words.size()];
  };
  int covered = 0;
  for (int round = 0; round < 3'000; ++round) {
    std::string rules;
    for (int i = 0; i < 5; ++i) {
      rules +=
          Bypass(one_of({"", "direction = \"out\"\n", "direction = \"in\"\n"}) +
                 one_of({"", "", "remote = [\"10.0.0.0/31\"]\n", "remote = [\"10.0.0.0\"]\n",
                         "remote = [\"0.0.0.0/0\"]\n", "remote = [\"::/0\", \"10.0.0.1\"]\n"}) +
                 one_of({"", "remote_port = [1]\n", "remote_port = [2, \"3-65535\"]\n"}) +
                 one_of({"protocol = \"tcp\"", "protocol = \"tcp\"", ""}));
    }
    const auto policy = Parse("latchkey = 1\napplication = \"a\"\n" + rules, "p");
    REQUIRE(policy);
    // Every flow that the words above can tell from others.
    bool left = false;
    for (const Direction direction : {Direction::kOut, Direction::kIn}) {
      for (const uint8_t protocol : {kProtocolTcp, kProtocolUdp}) {
        for (const char* remote : {"10.0.0.0", "10.0.0.1", "10.0.0.2", "fd00::1"}) {
          for (const uint16_t port : {0, 1, 2, 3}) {
            Flow flow{direction, protocol, {}, {*Address::Parse(remote), port}};
            left = left || FirstMatch(*policy, flow) == &policy->rules.back();
          }
        }
      }
    }
    size_t steps = 1'000'000;
    const bool is = !CoveredBy(policy->rules, policy->rules.size() - 1, steps).empty();
    INFO(rules);
    CHECK(is != left);
    covered += is ? 1 : 0;
  }
  CHECK(covered > 300);
  CHECK(covered < 2'700);
}

}  // namespace
}  // namespace latchkey::policy
