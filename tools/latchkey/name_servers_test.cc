#include "tools/latchkey/name_servers.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "policy/parse.h"

namespace latchkey::tool {
namespace {

constexpr char kHead[] = "latchkey = 1\napplication = \"app\"\n";

policy::Policy Parsed(const std::string& rules) {
  auto parsed = policy::Parse(kHead + rules, "p.toml");
  REQUIRE(parsed);
  return std::move(*parsed);
}

std::vector<Address> Servers() {
  return {Address::Parse("10.0.0.53").value(), Address::Parse("127.0.0.53").value(),
          Address::Parse("fd00::53").value()};
}

std::string Of(const std::string& rules) {
  return NameServerHint(FencedOff(Servers(), Parsed(rules), {}));
}

TEST_CASE("the servers are those of resolv.conf") {
  const std::string name = std::string(getenv("TEST_TMPDIR")) + "/resolv.conf";
  std::ofstream(name) << "# nameserver 1.1.1.1\nsearch example\nnameserver 10.0.0.53\n"
                         "  nameserver\tfe80::1%eth0 \nnameserver\nnameserver x\n"
                         "options edns0\nnameserver 127.0.0.53";
  CHECK(ReadNameServers(name) == std::vector{Address::Parse("10.0.0.53").value(),
                                             Address::Parse("fe80::1").value(),
                                             Address::Parse("127.0.0.53").value()});
  CHECK(ReadNameServers(name + ".none").empty());
}

TEST_CASE("what the policy lets pass needs no rule") {
  CHECK(Of("").empty());
  CHECK(Of("[peer.p]\nid = [\"bob\"]\n[[rule]]\nremote_port = [443]\naction = \"protect\"\n"
           "peer = \"p\"\n")
            .empty());
}

TEST_CASE("what it discards or protects is named, with the rule") {
  CHECK(Of("[default]\naction = \"discard\"\n") ==
        "behind the fence the C library does not reach its name servers; the rule that lets it, "
        "before those that stand in the way: [[rule]] name = \"dns\" direction = \"out\" remote = "
        "[\"10.0.0.53\", \"127.0.0.53\", \"fd00::53\"] remote_port = [53] action = \"bypass\"");
  // Loopback is never protected.
  const std::string all =
      "[peer.p]\nid = [\"bob\"]\n[[rule]]\naction = \"protect\"\npeer = \"p\"\n";
  CHECK(Of(all).find("remote = [\"10.0.0.53\", \"fd00::53\"]") != std::string::npos);
}

TEST_CASE("with the rule that is told they are reached") {
  const std::string rule =
      "[[rule]]\nname = \"dns\"\ndirection = \"out\"\nremote = [\"10.0.0.53\", \"127.0.0.53\", "
      "\"fd00::53\"]\nremote_port = [53]\naction = \"bypass\"\n";
  CHECK(Of(rule + "[default]\naction = \"discard\"\n").empty());
  // For one protocol it is half of it.
  CHECK_FALSE(Of(rule + "protocol = \"udp\"\n[default]\naction = \"discard\"\n").empty());
}

}  // namespace
}  // namespace latchkey::tool
