// The page against the decision: what the shim settles alone is what Decide() would have said.
#include "policy/compile.h"

#include <netinet/in.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <vector>

#include "policy/decide.h"
#include "policy/page_reader.h"

namespace latchkey::policy {
namespace {

using wire::PageRule;
using wire::Settle;

std::unique_ptr<wire::Page> Compile(const Policy& policy) {
  auto page = std::make_unique<wire::Page>();
  CompileInto(policy, &kFree, *page);
  return page;
}

TEST_CASE("An empty policy leaves everything to the system") {
  const auto page = Compile(Policy{});
  CHECK(page->rule_count == 0);
  CHECK(page->otherwise == Settle::kBypass);
  CHECK((page->flags.load() & wire::kPageDenyDatagrams) == 0);
}

TEST_CASE("A default of discard denies datagrams too, and back") {
  Policy policy;
  policy.otherwise = Action::kDiscard;
  wire::Page page{};
  page.flags = wire::kPageOverflow;
  CompileInto(policy, &kFree, page);
  CHECK(page.otherwise == Settle::kDiscard);
  CHECK((page.flags.load() & wire::kPageDenyDatagrams) != 0);
  CHECK((page.flags.load() & wire::kPageOverflow) != 0);  // the latches' flag: not ours to clear
  CompileInto(Policy{}, &kFree, page);
  CHECK(page.otherwise == Settle::kBypass);
  CHECK((page.flags.load() & wire::kPageDenyDatagrams) == 0);
  CHECK((page.flags.load() & wire::kPageOverflow) != 0);
}

TEST_CASE("Only a policy that says nothing at all is marked so") {
  const auto marked = [](const Policy& policy) {
    return (Compile(policy)->flags.load() & wire::kPageNoRules) != 0;
  };
  Policy policy;
  CHECK(marked(policy));
  policy.otherwise = Action::kDiscard;
  CHECK_FALSE(marked(policy));
  policy.otherwise = Action::kSystem;
  policy.rules = {Make(Action::kBypass)};
  CHECK_FALSE(marked(policy));
  // A rule that leaves no entry is a rule all the same.
  policy.rules[0].direction = Direction::kIn;
  CHECK(Compile(policy)->rule_count == 0);
  CHECK_FALSE(marked(policy));
  wire::Page page{};
  CompileInto(Policy{}, &kFree, page);
  CompileInto(policy, &kFree, page);
  CHECK((page.flags.load() & wire::kPageNoRules) == 0);
}

TEST_CASE("The generation ends even, and another one each time") {
  wire::Page page{};
  CompileInto(Policy{}, &kFree, page);
  const uint32_t first = page.generation.load();
  CHECK(first % 2 == 0);
  CHECK(first != 0);
  CompileInto(Policy{}, &kFree, page);
  CHECK(page.generation.load() % 2 == 0);
  CHECK(page.generation.load() != first);
  page.generation = 7;  // a writer that died half-way
  CompileInto(Policy{}, &kFree, page);
  CHECK(page.generation.load() == 8);
}

TEST_CASE("Compiling again leaves nothing of the old rules") {
  Policy policy;
  policy.rules = {Make(Action::kBypass, {P("10.0.0.0/8")}), Make(Action::kDiscard)};
  wire::Page page{};
  CompileInto(policy, &kFree, page);
  CHECK(page.rule_count == 2);
  policy.rules = {Make(Action::kDiscard, {P("10.0.0.0/8")})};
  CompileInto(policy, &kFree, page);
  CHECK(page.rule_count == 1);
  CHECK(Ask(page, S("10.0.0.1", 80)) == Settle::kDiscard);
  CHECK(Ask(page, S("11.0.0.1", 80)) == Settle::kBypass);
}

TEST_CASE("Entries have the layout of the page") {
  Policy policy;
  policy.rules = {
      Make(Action::kBypass, {P("10.9.0.0/16"), P("fd00:5::/64")}, {{80, 80}, {90, 99}})};
  const auto page = Compile(policy);
  REQUIRE(page->rule_count == 4);
  const PageRule& v4 = page->rules[0];
  CHECK(v4.family == AF_INET);
  CHECK(v4.prefix == 16);
  CHECK(v4.settle == Settle::kBypass);
  CHECK(v4.port_low == 80);
  CHECK(v4.port_high == 80);
  CHECK(v4.remote[0] == 10);
  CHECK(v4.remote[1] == 9);
  CHECK(std::all_of(v4.remote + 2, v4.remote + 16, [](uint8_t octet) { return octet == 0; }));
  const PageRule& v6 = page->rules[3];
  CHECK(v6.family == AF_INET6);
  CHECK(v6.prefix == 64);
  CHECK(v6.port_low == 90);
  CHECK(v6.port_high == 99);
  CHECK(v6.remote[0] == 0xfd);
  CHECK(v6.remote[3] == 5);
}

TEST_CASE("Each action is settled as far as it is the whole answer") {
  struct Row {
    const char* what;
    Rule rule;
    Settle away, loopback;
  };
  Rule in = Make(Action::kDiscard);
  in.direction = Direction::kIn;
  Rule udp = Make(Action::kDiscard);
  udp.protocol = kProtocolUdp;
  Rule out = Make(Action::kDiscard);
  out.direction = Direction::kOut;
  out.protocol = kProtocolTcp;
  const auto with_local = [](Action action) {
    Rule rule = Make(action);
    rule.local = {P("10.9.0.2")};
    return rule;
  };
  Rule local_port = Make(Action::kBypass);
  local_port.local_port = {{22, 22}};
  const std::vector<Row> rows = {
      {"bypass", Make(Action::kBypass), Settle::kBypass, Settle::kBypass},
      {"discard", Make(Action::kDiscard), Settle::kDiscard, Settle::kDiscard},
      {"system", Make(Action::kSystem), Settle::kAsk, Settle::kAsk},
      {"out", out, Settle::kDiscard, Settle::kDiscard},
      {"protect", Make(Action::kProtect), Settle::kProtect, Settle::kBypass},
      {"in: none of our business", in, Settle::kBypass, Settle::kBypass},
      {"udp: none of TCP's business", udp, Settle::kBypass, Settle::kBypass},
      {"bypass by local address", with_local(Action::kBypass), Settle::kAsk, Settle::kAsk},
      {"discard by local address", with_local(Action::kDiscard), Settle::kProtect,
       Settle::kProtect},
      {"protect by local address", with_local(Action::kProtect), Settle::kProtect,
       Settle::kProtect},
      {"bypass by local port", local_port, Settle::kAsk, Settle::kAsk},
  };
  for (const Row& row : rows) {
    INFO(row.what);
    Policy policy;
    policy.rules = {row.rule};
    const auto page = Compile(policy);
    CHECK(Ask(*page, S("10.9.0.1", 80)) == row.away);
    CHECK(Ask(*page, S("fd00::1", 80)) == row.away);
    CHECK(Ask(*page, S("127.0.0.1", 80)) == row.loopback);
    CHECK(Ask(*page, S("::1", 80)) == row.loopback);
  }
}

TEST_CASE("Of datagrams the page says where a rule protects, whoever's it is") {
  Rule udp = Make(Action::kProtect, {}, {{53, 53}});
  udp.protocol = kProtocolUdp;
  udp.direction = Direction::kOut;
  const auto page = [](std::vector<Rule> rules, std::vector<Rule> floor,
                       std::vector<SpdEntry> spd) {
    Policy policy;
    policy.rules = std::move(rules);
    SystemPolicy file;
    file.rules = std::move(floor);
    const System system{file, spd};
    auto made = std::make_unique<wire::Page>();
    CompileInto(policy, &system, *made);
    return made;
  };
  const SocketAddress dns = S("10.9.0.1", 53);
  const SocketAddress other = S("10.9.0.1", 54);
  const auto by_rule = page({udp}, {}, {});
  CHECK(Ask(*by_rule, dns, kProtocolUdp) == Settle::kProtect);
  CHECK(Ask(*by_rule, dns) == Settle::kBypass);
  CHECK(Ask(*by_rule, other, kProtocolUdp) == Settle::kBypass);
  CHECK(Ask(*by_rule, S("::1", 53), kProtocolUdp) == Settle::kBypass);
  const auto by_floor = page({}, {udp}, {});
  CHECK(Ask(*by_floor, dns, kProtocolUdp) == Settle::kProtect);
  CHECK(Ask(*by_floor, dns) == Settle::kBypass);
  // A rule that bypasses both is bent for the one of them that the floor is about.
  const auto bent = page({Make(Action::kBypass)}, {udp}, {});
  CHECK(Ask(*bent, dns, kProtocolUdp) == Settle::kProtect);
  CHECK(Ask(*bent, dns) == Settle::kBypass);
  // What the SPD asks the kernel sees to, latched or not.
  SpdEntry entry;
  entry.dir = 1;
  entry.bare = false;
  entry.protocol = SaProtocol::kEsp;
  entry.mode = Mode::kTransport;
  entry.selector.protocol = kProtocolUdp;
  const auto by_spd = page({}, {}, {entry});
  CHECK(Ask(*by_spd, dns, kProtocolUdp) == Settle::kAsk);
  CHECK(Ask(*by_spd, dns) == Settle::kBypass);
}

TEST_CASE("A question is not jumped over by a later answer") {
  Policy policy;
  policy.rules = {Make(Action::kProtect, {P("10.9.0.0/24")}, {{80, 90}}),
                  Make(Action::kBypass, {P("10.0.0.0/8")}), Make(Action::kDiscard)};
  const auto page = Compile(policy);
  CHECK(Ask(*page, S("10.9.0.1", 80)) == Settle::kProtect);
  CHECK(Ask(*page, S("10.9.0.1", 79)) == Settle::kBypass);
  CHECK(Ask(*page, S("10.9.1.1", 80)) == Settle::kBypass);
  CHECK(Ask(*page, S("11.9.0.1", 80)) == Settle::kDiscard);
}

TEST_CASE("An earlier discard of loopback holds against a later protect rule") {
  Policy policy;
  policy.rules = {Make(Action::kDiscard, {P("127.0.0.0/8")}, {{80, 80}}), Make(Action::kProtect)};
  const auto page = Compile(policy);
  CHECK(Ask(*page, S("127.0.0.1", 80)) == Settle::kDiscard);
  CHECK(Ask(*page, S("127.0.0.1", 81)) == Settle::kBypass);
  policy.rules = {Make(Action::kProtect, {P("127.1.0.0/16")}), Make(Action::kDiscard)};
  const auto narrow = Compile(policy);
  CHECK(Ask(*narrow, S("127.1.0.1", 80)) == Settle::kBypass);
  CHECK(Ask(*narrow, S("127.2.0.1", 80)) == Settle::kDiscard);
}

TEST_CASE("What does not fit into the table is asked about") {
  Policy policy;
  for (uint8_t i = 0; i < 65; ++i) {
    policy.rules.push_back(Make(Action::kBypass,
                                {P("10.0.0.0/8"), P("11.0.0.0/8"), P("12.0.0.0/8"), P("fd00::/8")},
                                {{static_cast<uint16_t>(i + 1), static_cast<uint16_t>(i + 1)}}));
  }
  for (const Action otherwise : {Action::kSystem, Action::kDiscard}) {
    policy.otherwise = otherwise;
    const auto page = Compile(policy);
    CHECK(page->rule_count == wire::kPageRules);
    CHECK(page->otherwise == Settle::kProtect);
    CHECK(Ask(*page, S("10.0.0.1", 64)) == Settle::kBypass);
    CHECK(Ask(*page, S("10.0.0.1", 65)) == Settle::kProtect);
    CHECK(Ask(*page, S("192.0.2.1", 1)) == Settle::kProtect);
  }
  policy.rules.pop_back();  // exactly full
  const auto full = Compile(policy);
  CHECK(full->rule_count == wire::kPageRules);
  CHECK(full->otherwise == Settle::kDiscard);
}

TEST_CASE("As long as the system is not known, nothing is bypassed, and no datagram let go") {
  wire::Page page{};
  Policy policy;
  CompileInto(policy, nullptr, page);
  CHECK(Ask(page, S("10.9.0.1", 80)) == Settle::kProtect);
  CHECK(Ask(page, S("127.0.0.1", 80)) == Settle::kProtect);
  CHECK((page.flags.load() & wire::kPageNoRules) == 0);
  policy.rules = {Make(Action::kBypass)};
  CompileInto(policy, nullptr, page);
  CHECK(Ask(page, S("10.9.0.1", 80)) == Settle::kProtect);
  CompileInto(policy, &kFree, page);
  CHECK(Ask(page, S("10.9.0.1", 80)) == Settle::kBypass);
}

TEST_CASE("That no rule is about datagrams is said in one word") {
  const auto held = [](const Policy& policy) {
    return (Compile(policy)->flags.load() & wire::kPageDatagramRules) != 0;
  };
  Policy policy;
  CHECK_FALSE(held(policy));
  policy.rules = {Make(Action::kProtect)};
  CHECK(held(policy));
  policy.rules[0].protocol = kProtocolTcp;
  CHECK_FALSE(held(policy));
  policy.rules[0].protocol = kProtocolUdp;
  CHECK(held(policy));
  policy.rules[0].action = Action::kBypass;
  CHECK_FALSE(held(policy));
  policy.otherwise = Action::kDiscard;
  CHECK(held(policy));
  // And taken back.
  wire::Page page{};
  CompileInto(policy, &kFree, page);
  CompileInto(Policy{}, &kFree, page);
  CHECK((page.flags.load() & wire::kPageDatagramRules) == 0);
}

TEST_CASE("That a rule holds datagrams that come in is said in one word") {
  const auto holds = [](const Policy& policy) {
    return (Compile(policy)->flags.load() & wire::kPageHold) != 0;
  };
  Policy policy;
  CHECK_FALSE(holds(policy));
  for (const Action action : {Action::kProtect, Action::kProtectOrBypass, Action::kDiscard}) {
    policy.rules = {Make(action)};
    policy.rules[0].direction = Direction::kBoth;
    CHECK(holds(policy));
    policy.rules[0].direction = Direction::kIn;
    CHECK(holds(policy));
    policy.rules[0].protocol = kProtocolTcp;
    CHECK_FALSE(holds(policy));
    policy.rules[0].protocol = kProtocolUdp;
    CHECK(holds(policy));
    policy.rules[0].direction = Direction::kOut;
    CHECK_FALSE(holds(policy));
  }
  policy.rules[0].direction = Direction::kIn;
  policy.rules[0].action = Action::kBypass;
  CHECK_FALSE(holds(policy));
  policy.otherwise = Action::kDiscard;
  CHECK(holds(policy));
  // And taken back.
  wire::Page page{};
  CompileInto(policy, &kFree, page);
  CompileInto(Policy{}, &kFree, page);
  CHECK((page.flags.load() & wire::kPageHold) == 0);
}

TEST_CASE("Connections that come in are decided where a rule or the default speaks of them") {
  Policy policy;
  SystemPolicy file;
  CHECK_FALSE(RulesConnections(policy, file));
  for (const Action action : {Action::kProtect, Action::kProtectOrBypass, Action::kDiscard,
                              Action::kBypass, Action::kSystem}) {
    const bool decides = action != Action::kBypass && action != Action::kSystem;
    CAPTURE(static_cast<int>(action));
    Rule rule = Make(action);
    for (const Direction direction : {Direction::kIn, Direction::kOut, Direction::kBoth}) {
      for (const uint8_t protocol : {uint8_t{0}, kProtocolTcp, kProtocolUdp}) {
        rule.direction = direction;
        rule.protocol = protocol;
        const bool speaks = direction != Direction::kOut && protocol != kProtocolUdp;
        policy.rules = {rule};
        CHECK(RulesConnections(policy, file) == (decides && speaks));
        policy.rules.clear();
        file.rules = {rule};
        CHECK(RulesConnections(policy, file) == (decides && speaks));
        file.rules.clear();
      }
    }
    policy.otherwise = action;
    CHECK(RulesConnections(policy, file) == decides);
    policy.otherwise = Action::kSystem;
  }
}

}  // namespace
}  // namespace latchkey::policy
