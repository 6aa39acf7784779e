// Which rule speaks of a flow.
#include "policy/policy.h"

#include <catch2/catch.hpp>
#include <vector>

namespace latchkey::policy {
namespace {

SocketAddress S(const char* text, uint16_t port) { return {Address::Parse(text).value(), port}; }
Prefix P(const char* text) { return Prefix::Parse(text).value(); }

const Flow kFlow{Direction::kOut, kProtocolTcp, S("10.9.0.2", 40000), S("10.9.0.1", 80)};

bool With(auto change) {
  Rule rule;
  change(rule);
  return Matches(rule, kFlow);
}

TEST_CASE("A rule that asks nothing matches every flow, known or not") {
  CHECK(Matches(Rule{}, kFlow));
  CHECK(Matches(Rule{}, Flow{}));
  CHECK(Matches(Rule{}, Flow{Direction::kIn, kProtocolUdp, {}, S("fd00::1", 0)}));
}

TEST_CASE("Each condition is checked by itself") {
  CHECK(With([](Rule& r) { r.direction = Direction::kOut; }));
  CHECK_FALSE(With([](Rule& r) { r.direction = Direction::kIn; }));
  CHECK(With([](Rule& r) { r.protocol = kProtocolTcp; }));
  CHECK_FALSE(With([](Rule& r) { r.protocol = kProtocolUdp; }));
  CHECK(With([](Rule& r) { r.remote = {P("192.0.2.0/24"), P("10.9.0.0/24")}; }));
  CHECK_FALSE(With([](Rule& r) { r.remote = {P("10.9.0.2")}; }));
  CHECK_FALSE(With([](Rule& r) { r.remote = {P("::/0")}; }));
  CHECK(With([](Rule& r) { r.local = {P("10.9.0.2")}; }));
  CHECK_FALSE(With([](Rule& r) { r.local = {P("10.9.0.1")}; }));
  CHECK(With([](Rule& r) { r.remote_port = {{1, 79}, {80, 80}}; }));
  CHECK_FALSE(With([](Rule& r) { r.remote_port = {{81, 65535}}; }));
  CHECK(With([](Rule& r) { r.local_port = {{40000, 40001}}; }));
  CHECK_FALSE(With([](Rule& r) { r.local_port = {{80, 80}}; }));
}

TEST_CASE("What is not known yet matches only rules that do not ask about it") {
  struct Row {
    const char* what;
    Flow flow;
    bool remote, local, remote_port, local_port;
  };
  const std::vector<Row> rows = {
      {"all known", kFlow, true, true, true, true},
      {"no local port",
       {Direction::kOut, 6, S("10.9.0.2", 0), kFlow.remote},
       true,
       true,
       true,
       false},
      {"no local end", {Direction::kOut, 6, {}, kFlow.remote}, true, false, true, false},
      {"no remote end", {Direction::kIn, 6, kFlow.local, {}}, false, true, false, true},
      {"no remote port",
       {Direction::kIn, 6, kFlow.local, S("10.9.0.1", 0)},
       true,
       true,
       false,
       true},
  };
  for (const Row& row : rows) {
    INFO(row.what);
    Rule remote, local, remote_port, local_port;
    remote.remote = {P("0.0.0.0/0"), P("::/0")};
    local.local = {P("0.0.0.0/0"), P("::/0")};
    remote_port.remote_port = {PortRange{}};
    local_port.local_port = {PortRange{}};
    CHECK(Matches(remote, row.flow) == row.remote);
    CHECK(Matches(local, row.flow) == row.local);
    CHECK(Matches(remote_port, row.flow) == row.remote_port);
    CHECK(Matches(local_port, row.flow) == row.local_port);
  }
}

TEST_CASE("The first rule that matches is found") {
  Policy policy;
  CHECK(FirstMatch(policy, kFlow) == nullptr);
  policy.rules.resize(3);
  policy.rules[0].remote = {P("192.0.2.0/24")};
  policy.rules[1].remote = {P("10.0.0.0/8")};
  CHECK(FirstMatch(policy, kFlow) == &policy.rules[1]);
  policy.rules[1].direction = Direction::kIn;
  CHECK(FirstMatch(policy, kFlow) == &policy.rules[2]);
  policy.rules.pop_back();
  CHECK(FirstMatch(policy, kFlow) == nullptr);
}

TEST_CASE("Without a connection no rule for what comes in lets out what another does not") {
  const Flow flow{Direction::kBoth, kProtocolUdp, S("10.9.0.2", 40000), S("10.9.0.1", 53)};
  const auto make = [](Direction direction, Action action, const char* remote = nullptr) {
    Rule rule;
    rule.direction = direction;
    rule.action = action;
    if (remote != nullptr) rule.remote = {P(remote)};
    return rule;
  };
  const auto counts = [&](std::vector<Rule> rules) -> int {
    Policy policy;
    policy.rules = std::move(rules);
    const Rule* rule = FirstMatch(policy, flow);
    return rule == nullptr ? -1 : static_cast<int>(rule - policy.rules.data());
  };
  const Rule in_clear = make(Direction::kIn, Action::kBypass);
  const Rule clear = make(Direction::kBoth, Action::kBypass);
  Rule server = in_clear;
  server.local_port = {{40000, 40000}};
  Rule port = clear;
  port.local_port = {{40000, 40000}};
  // Who may go in clear all the same gains nothing by a rule that cannot be kept without a
  // connection.
  CHECK(counts({make(Direction::kOut, Action::kProtectOrBypass), clear}) == 1);
  for (const Action action : {Action::kProtect, Action::kDiscard}) {
    INFO(static_cast<int>(action));
    const Rule out = make(Direction::kOut, action);
    const Rule in = make(Direction::kIn, action);
    const Rule both = make(Direction::kBoth, action);
    CHECK(counts({out, clear}) == 0);
    CHECK(counts({out, in_clear}) == 0);
    CHECK(counts({in_clear, out}) == 1);
    CHECK(counts({in_clear, both}) == 1);
    CHECK(counts({out, port}) == 0);
    // A server's answers are let out with the questions; what an exception lets out is let in.
    CHECK(counts({out, server}) == 1);
    CHECK(counts({clear, out}) == 0);
    CHECK(counts({make(Direction::kOut, Action::kBypass), in_clear, out}) == 1);
    CHECK(counts({in_clear, make(Direction::kOut, action, "10.8.0.0/16")}) == 0);
    // What asks for more of what comes in has the first word.
    CHECK(counts({make(Direction::kOut, Action::kBypass), in}) == 1);
    CHECK(counts({make(Direction::kOut, Action::kProtect), both}) == 1);
    CHECK(counts({out}) == 0);
  }
  CHECK(counts({make(Direction::kIn, Action::kDiscard, "10.8.0.0/16")}) == -1);
}

}  // namespace
}  // namespace latchkey::policy
