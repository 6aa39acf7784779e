// Policies that are right: every key, and what holds when it is left out.
#include "policy/parse.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <iterator>
#include <string>

namespace latchkey::policy {
namespace {

using std::chrono::milliseconds;

Policy Good(const std::string& text) {
  const auto policy = Parse(text, "app.toml");
  if (!policy) FAIL(policy.error().front().ToString());
  return *policy;
}

Policy GoodFile(const std::string& name) {
  std::ifstream file("policy/testdata/" + name);
  REQUIRE(file.good());
  return Good({std::istreambuf_iterator<char>(file), {}});
}

const std::string kHead = "latchkey = 1\napplication = \"a\"\n";

Rule GoodRule(const std::string& lines) {
  Policy policy = Good(kHead + "[[rule]]\n" + lines);
  REQUIRE(policy.rules.size() == 1);
  return policy.rules[0];
}

Prefix P(const char* text) { return Prefix::Parse(text).value(); }

TEST_CASE("The sample of a client: every key") {
  const Policy policy = GoodFile("client.toml");
  CHECK(policy.application == "orders-api");
  CHECK(policy.program == std::vector<std::string>{"/usr/bin/curl"});
  CHECK(policy.otherwise == Action::kDiscard);
  REQUIRE(policy.rules.size() == 2);
  CHECK(policy.rules[0].name == "metrics");
  CHECK(policy.rules[0].action == Action::kBypass);
  const Rule& rule = policy.rules[1];
  CHECK(rule.name == "database");
  CHECK(rule.direction == Direction::kOut);
  CHECK(rule.protocol == kProtocolTcp);
  CHECK(rule.remote == std::vector<Prefix>{P("10.0.5.0/24"), P("fd00:5::/64")});
  CHECK(rule.remote_port == std::vector<PortRange>{{5432, 5432}, {6000, 6010}});
  CHECK(rule.local.empty());
  CHECK(rule.local_port.empty());
  CHECK(rule.action == Action::kProtect);
  CHECK(rule.reqid == 42);
  CHECK(rule.acquire_timeout == milliseconds(500));
  CHECK(rule.protection.name == "strong");
  CHECK(rule.protection.protocol == SaProtocol::kEsp);
  CHECK(rule.protection.mode == Mode::kTransport);
  CHECK(rule.protection.encryption == std::vector<std::string>{"aes-gcm-16", "chacha20-poly1305"});
  CHECK(rule.protection.integrity == std::vector<std::string>{"hmac-sha2-256"});
  CHECK(rule.protection.min_key_bits == 256);
  CHECK(rule.protection.replay_required);
  CHECK_FALSE(rule.protection.esn_required);
  CHECK(rule.protection.pin == Pin::kSpi);
  CHECK(rule.peer.name == "database");
  CHECK(rule.peer.ids == std::vector<std::string>{"db1.example", "*.db.example"});
  CHECK(rule.peer.auth == std::vector<std::string>{"pubkey", "psk"});
}

TEST_CASE("The sample of a server: what is left out") {
  const Policy policy = GoodFile("server.toml");
  CHECK(policy.program.empty());
  CHECK(policy.otherwise == Action::kSystem);
  REQUIRE(policy.rules.size() == 2);
  CHECK(policy.rules[0].name == "rule 1");
  CHECK(policy.rules[0].direction == Direction::kIn);
  const Rule& rule = policy.rules[1];
  CHECK(rule.name == "rule 2");
  CHECK(rule.local == std::vector<Prefix>{P("10.9.0.2")});
  CHECK(rule.local_port == std::vector<PortRange>{{80, 80}, {443, 443}});
  CHECK(rule.remote.empty());
  CHECK(rule.protocol == 0);
  CHECK(rule.reqid == 0);
  CHECK(rule.acquire_timeout == milliseconds(5000));
  CHECK(rule.peer.auth.empty());
  CHECK(rule.protection.name == "default");
  CHECK(rule.protection.encryption.empty());
  CHECK(rule.protection.min_key_bits == 128);
  CHECK(rule.protection.replay_required);
  CHECK(rule.protection.pin == Pin::kAuto);
}

TEST_CASE("The smallest policy leaves everything to the system") {
  const Policy policy = Good(kHead);
  CHECK(policy.rules.empty());
  CHECK(policy.otherwise == Action::kSystem);
  CHECK(Good(kHead + "[default]\n").otherwise == Action::kSystem);
  CHECK(Good(kHead + "default.action = \"system\"").otherwise == Action::kSystem);
  CHECK(Good(kHead + "default.action = \"discard\"").otherwise == Action::kDiscard);
}

TEST_CASE("Modes: the one that is named, else either where the program connects") {
  const auto mode = [](const std::string& protection, const std::string& direction) {
    return Good(kHead + "[protection.x]\n" + protection + "\n[[rule]]\naction = \"protect\"\n" +
                "protection = \"x\"\n" + direction)
        .rules.at(0)
        .protection.mode;
  };
  const std::string out = "direction = \"out\"";
  const std::string in = "direction = \"in\"";
  CHECK(mode("mode = \"tunnel\"", out) == Mode::kTunnel);
  CHECK(mode("mode = \"tunnel\"", in) == Mode::kTunnel);
  CHECK(mode("mode = \"transport\"", out) == Mode::kTransport);
  CHECK(mode("mode = \"any\"", out) == std::nullopt);
  CHECK(mode("", out) == std::nullopt);
  CHECK(mode("", in) == Mode::kTransport);
  CHECK(mode("", "") == Mode::kTransport);
  CHECK(GoodRule("action = \"protect\"\ndirection = \"out\"").protection.mode == std::nullopt);
  CHECK(GoodRule("action = \"protect\"").protection.mode == Mode::kTransport);
}

TEST_CASE("Directions, protocols, actions") {
  CHECK(GoodRule("action = \"bypass\"").direction == Direction::kBoth);
  CHECK(GoodRule("action = \"bypass\"").action == Action::kBypass);
  CHECK(GoodRule("action = \"discard\"").action == Action::kDiscard);
  CHECK(GoodRule("action = \"protect\"").action == Action::kProtect);
  CHECK(GoodRule("action = \"protect\"\ndirection = \"out\"").direction == Direction::kOut);
  CHECK(GoodRule("action = \"protect\"\ndirection = \"in\"").direction == Direction::kIn);
  CHECK(GoodRule("action = \"protect\"\nprotocol = \"any\"").protocol == 0);
  CHECK(GoodRule("action = \"protect\"\nprotocol = \"tcp\"").protocol == kProtocolTcp);
  for (const char* direction : {"", "\ndirection = \"in\"", "\ndirection = \"out\""}) {
    CHECK(GoodRule(std::string("action = \"protect\"\nprotocol = \"udp\"") + direction).protocol ==
          kProtocolUdp);
  }
}

TEST_CASE("Limits of numbers, lists and durations still pass") {
  CHECK(GoodRule("action = \"protect\"\nreqid = 1").reqid == 1);
  CHECK(GoodRule("action = \"protect\"\nreqid = 4294967295").reqid == 4294967295);
  CHECK(
      GoodRule("action = \"bypass\"\nremote_port = [1, 65535, \"1-65535\", \"7-7\"]").remote_port ==
      std::vector<PortRange>{{1, 1}, {65535, 65535}, {1, 65535}, {7, 7}});
  const auto timeout = [](const std::string& text) {
    return GoodRule("action = \"protect\"\nacquire_timeout = \"" + text + "\"").acquire_timeout;
  };
  CHECK(timeout("1ms") == milliseconds(1));
  CHECK(timeout("5s") == milliseconds(5'000));
  CHECK(timeout("1m") == milliseconds(60'000));
  CHECK(timeout("10m") == milliseconds(600'000));
  CHECK(timeout("600000ms") == milliseconds(600'000));
  std::string ports = "1";
  for (int port = 2; port <= 64; ++port) ports += ", " + std::to_string(port);
  CHECK(GoodRule("action = \"bypass\"\nlocal_port = [" + ports + "]").local_port.size() == 64);
  const std::string name(63, 'n');
  CHECK(Good("latchkey = 1\napplication = \"" + name + "\"").application == name);
  std::string rules = kHead;
  for (int i = 0; i < 256; ++i) rules += "[[rule]]\naction = \"bypass\"\n";
  const Policy policy = Good(rules);
  CHECK(policy.rules.size() == 256);
  CHECK(policy.rules.back().name == "rule 256");
}

TEST_CASE("Values of a protection") {
  const auto spec = [](const std::string& lines) {
    return Good(kHead + "[protection.x]\n" + lines +
                "\n[[rule]]\naction = \"protect\"\nprotection = \"x\"")
        .rules[0]
        .protection;
  };
  CHECK(spec("").name == "x");
  CHECK(spec("min_key_bits = 0").min_key_bits == 0);
  CHECK(spec("min_key_bits = 256").min_key_bits == 256);
  CHECK_FALSE(spec("replay = \"any\"").replay_required);
  CHECK(spec("replay = \"required\"").replay_required);
  CHECK(spec("esn = \"required\"").esn_required);
  CHECK_FALSE(spec("esn = \"any\"").esn_required);
  CHECK(spec("sharing = \"unique\"").unique);
  CHECK_FALSE(spec("sharing = \"shared\"").unique);
  CHECK_FALSE(spec("").unique);
  CHECK(spec("pin = \"auto\"").pin == Pin::kAuto);
  CHECK(spec("pin = \"reqid\"").pin == Pin::kReqid);
  CHECK(spec("pin = \"spi\"").pin == Pin::kSpi);
  CHECK(spec("encryption = [\"null\"]\nmin_key_bits = 0").encryption ==
        std::vector<std::string>{"null"});
}

TEST_CASE("Tables may stand after the rules that name them, and be written as TOML likes") {
  const Policy policy = Good(kHead +
                             "rule = [{action = \"protect\", peer = \"p\"}]\n"
                             "peer.p.id = [\"alice\"]\n");
  REQUIRE(policy.rules.size() == 1);
  CHECK(policy.rules[0].peer.ids == std::vector<std::string>{"alice"});
}

TEST_CASE("The process: what is left out, io_uring, and what may go bare") {
  CHECK_FALSE(Good(kHead).deny_io_uring);
  CHECK_FALSE(Good(kHead + "[process]").deny_io_uring);
  CHECK_FALSE(Good(kHead + "[process]\ndeny_io_uring = false").deny_io_uring);
  CHECK(Good(kHead + "[process]\ndeny_io_uring = true").deny_io_uring);
  CHECK(Good(kHead + "[process]").drop_preload.empty());
  const std::string longest = "/" + std::string(254, 'x');
  CHECK(Good(kHead + "[process]\ndrop_preload = [\"/usr/bin/sudo\", \"" + longest + "\"]")
            .drop_preload == std::vector<std::string>{"/usr/bin/sudo", longest});
}

TEST_CASE("A text of exactly 1 MiB is read") {
  std::string text = kHead + "#";
  text.append((1 << 20) - text.size(), 'x');
  CHECK(Good(text).application == "a");
  CHECK_FALSE(Parse(text + "x", "app.toml").has_value());
}

TEST_CASE("An error as text") {
  CHECK(ParseError{"app.toml", 12, 8, "x"}.ToString() == "app.toml:12:8: x");
  CHECK(ParseError{"app.toml", 0, 0, "x"}.ToString() == "app.toml: x");
}

}  // namespace
}  // namespace latchkey::policy
