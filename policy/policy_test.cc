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

}  // namespace
}  // namespace latchkey::policy
