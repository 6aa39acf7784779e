#include "tools/latchkeyd/latch/listener_plan.h"

#include <catch2/catch.hpp>
#include <random>

namespace latchkey::broker {
namespace {

constexpr uint32_t kMark = 0x80000000;

Prefix P(const char* text) { return Prefix::Parse(text).value(); }
SocketAddress Any(Family family, uint16_t port = 80) { return {Address::AnyOf(family), port}; }

policy::Rule Rule(policy::Action action, std::vector<const char*> remote = {}) {
  policy::Rule rule;
  rule.name = "r";
  rule.direction = Direction::kIn;
  rule.action = action;
  for (const char* text : remote) rule.remote.push_back(P(text));
  return rule;
}

policy::Policy Make(std::vector<policy::Rule> rules,
                    policy::Action otherwise = policy::Action::kSystem) {
  policy::Policy policy;
  policy.rules = std::move(rules);
  policy.otherwise = otherwise;
  return policy;
}

SpdEntry AllowAll(uint8_t dir, uint32_t priority, Family family = Family::kV4) {
  SpdEntry entry;
  entry.dir = dir;
  entry.priority = priority;
  entry.selector.family = family;
  entry.selector.source = entry.selector.destination = Prefix{Address::AnyOf(family), 0};
  return entry;
}

TEST_CASE("subtracting prefixes leaves exactly the rest") {
  CHECK(Subtract(P("10.0.0.0/8"), P("11.0.0.0/8")) == std::vector<Prefix>{P("10.0.0.0/8")});
  CHECK(Subtract(P("10.0.0.0/8"), P("0.0.0.0/0")).empty());
  CHECK(Subtract(P("10.0.0.0/8"), P("10.0.0.0/8")).empty());
  CHECK(Subtract(P("10.0.0.0/8"), P("fd00::/8")).size() == 1);
  CHECK(Subtract(P("10.0.0.0/30"), P("10.0.0.1")) ==
        std::vector<Prefix>{P("10.0.0.2/31"), P("10.0.0.0/32")});
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const auto draw = [&] {
      Prefix prefix{Address::AnyOf(Family::kV4), static_cast<uint8_t>(random() % 9)};
      prefix.base.octets[0] = static_cast<uint8_t>(random() & ~(0xffu >> prefix.length) & 0xff);
      return prefix;
    };
    const Prefix from = draw(), hole = draw();
    const std::vector<Prefix> rest = Subtract(from, hole);
    for (int i = 0; i < 256; ++i) {
      Address address = Address::AnyOf(Family::kV4);
      address.octets[0] = static_cast<uint8_t>(i);
      int in = 0;
      for (const Prefix& prefix : rest) in += prefix.Contains(address) ? 1 : 0;
      CHECK(in == (from.Contains(address) && !hole.Contains(address) ? 1 : 0));
    }
  }
}

TEST_CASE("every peer protected: the socket's own policy does it, and nothing enters the SPD") {
  const auto plan = PlanListener(Make({Rule(policy::Action::kProtect)}), Any(Family::kV4),
                                 {Family::kV4}, {AllowAll(0, 0)}, kMark);
  REQUIRE(plan);
  CHECK(plan->latched);
  CHECK(plan->pure);
  CHECK(plan->socket_family == Family::kV4);
  CHECK(plan->guards.empty());
}

TEST_CASE("peers that must come by a tunnel are kept out until there is one") {
  policy::Rule rule = Rule(policy::Action::kProtect, {"10.0.0.0/8"});
  rule.protection.mode = Mode::kTunnel;
  const auto plan = PlanListener(Make({rule}, policy::Action::kDiscard), Any(Family::kV4),
                                 {Family::kV4}, {}, kMark);
  REQUIRE(plan);
  CHECK(plan->latched);
  CHECK_FALSE(plan->pure);
  for (const Guard& guard : plan->guards) CHECK(guard.action == Guard::Action::kBlock);
  CHECK(ByReqid(plan->guards, Address::Parse("10.1.2.3").value()));
  // Nobody can come from there, by a tunnel or not.
  CHECK_FALSE(ByReqid(plan->guards, Address::Parse("11.1.2.3").value()));
  const auto beaten = PlanListener(Make({rule}), Any(Family::kV4), {Family::kV4},
                                   {AllowAll(0, kTunnelPriority)}, kMark);
  CHECK(beaten.error().reason == Reason::kConflictSpd);
  rule.protection.mode = Mode::kTransport;
  CHECK_FALSE(
      ByReqid(PlanListener(Make({rule}), Any(Family::kV4), {Family::kV4}, {}, kMark)->guards,
              Address::Parse("10.1.2.3").value()));
}

TEST_CASE("a dual-stack listener needs an SPD guard for the family its policy cannot hold") {
  const auto rules = Make({Rule(policy::Action::kProtect)});
  const std::vector<Family> both = {Family::kV6, Family::kV4};
  auto plan = PlanListener(rules, Any(Family::kV6), both, {}, kMark);
  REQUIRE(plan);
  CHECK(plan->socket_family == Family::kV6);
  REQUIRE(plan->guards.size() == 1);
  const Guard& guard = plan->guards[0];
  CHECK_FALSE(guard.out);
  CHECK(guard.action == Guard::Action::kEsp);
  CHECK(guard.priority == 0);
  CHECK(guard.reqid == 0);
  CHECK(guard.selector.family == Family::kV4);
  CHECK(guard.selector.destination_port == 80);
  CHECK(guard.selector.destination_mask == 0xffff);

  // An ALLOW entry that would come before the guard: the socket's policy takes that family.
  plan = PlanListener(rules, Any(Family::kV6), both, {AllowAll(0, 0)}, kMark);
  REQUIRE(plan);
  CHECK(plan->socket_family == Family::kV4);
  CHECK(plan->guards.at(0).selector.family == Family::kV6);
  // One behind it does no harm.
  plan = PlanListener(rules, Any(Family::kV6), both, {AllowAll(0, 1)}, kMark);
  CHECK(plan->socket_family == Family::kV6);
  // In both families nothing is safe.
  plan = PlanListener(rules, Any(Family::kV6), both, {AllowAll(0, 0), AllowAll(0, 0, Family::kV6)},
                      kMark);
  REQUIRE_FALSE(plan);
  CHECK(plan.error().reason == Reason::kConflictSpd);
}

TEST_CASE(
    "bypassed peers make a listener mixed: guards by prefix, holes only where the SPD is open") {
  const auto rules = Make({Rule(policy::Action::kBypass, {"10.1.0.0/16"}),
                           Rule(policy::Action::kProtect, {"10.0.0.0/8"}),
                           Rule(policy::Action::kDiscard, {"11.0.0.0/8"})});
  const auto plan = PlanListener(rules, Any(Family::kV4), {Family::kV4}, {}, kMark);
  REQUIRE(plan);
  CHECK(plan->latched);
  CHECK_FALSE(plan->pure);
  const auto covers = [&](const char* peer, bool out, Guard::Action action) {
    int count = 0;
    for (const Guard& guard : plan->guards) {
      if (guard.out != out) continue;
      const Prefix& remote = out ? guard.selector.destination : guard.selector.source;
      if (!remote.Contains(Address::Parse(peer).value())) continue;
      CHECK(guard.action == action);
      CHECK(guard.mark == (out ? kMark : 0));
      ++count;
    }
    return count;
  };
  CHECK(covers("10.1.2.3", false, Guard::Action::kEsp) == 0);
  CHECK(covers("10.1.2.3", true, Guard::Action::kAllow) == 1);
  CHECK(covers("10.2.2.3", false, Guard::Action::kEsp) == 1);
  CHECK(covers("10.2.2.3", true, Guard::Action::kAllow) == 0);
  CHECK(covers("11.2.2.3", false, Guard::Action::kBlock) == 1);
  CHECK(covers("11.2.2.3", true, Guard::Action::kAllow) == 0);
  CHECK(covers("12.2.2.3", true, Guard::Action::kAllow) == 1);

  SpdEntry protects = AllowAll(1, 100);
  protects.bare = false;
  const auto strict = PlanListener(rules, Any(Family::kV4), {Family::kV4}, {protects}, kMark);
  REQUIRE(strict);
  for (const Guard& guard : strict->guards) CHECK_FALSE(guard.out);
}

TEST_CASE("listeners that protect nobody are left alone or refused") {
  CHECK_FALSE(PlanListener(Make({}), Any(Family::kV4), {Family::kV4}, {}, kMark)->latched);
  const auto refused =
      PlanListener(Make({}, policy::Action::kDiscard), Any(Family::kV4), {Family::kV4}, {}, kMark);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().reason == Reason::kPolicyDiscard);
  policy::Rule other = Rule(policy::Action::kProtect);
  other.local_port.push_back({443, 443});
  CHECK_FALSE(PlanListener(Make({other}), Any(Family::kV4), {Family::kV4}, {}, kMark)->latched);
  CHECK(PlanListener(Make({other}), Any(Family::kV4, 443), {Family::kV4}, {}, kMark)->latched);
  policy::Rule out = Rule(policy::Action::kProtect);
  out.direction = Direction::kOut;
  CHECK_FALSE(PlanListener(Make({out}), Any(Family::kV4), {Family::kV4}, {}, kMark)->latched);
}

TEST_CASE("rules about local addresses need a socket bound to one") {
  policy::Rule rule = Rule(policy::Action::kProtect);
  rule.local.push_back(P("10.9.0.1"));
  const auto wildcard = PlanListener(Make({rule}), Any(Family::kV4), {Family::kV4}, {}, kMark);
  REQUIRE_FALSE(wildcard);
  CHECK(wildcard.error().reason == Reason::kUnsupported);
  const SocketAddress bound{Address::Parse("10.9.0.1").value(), 80};
  CHECK(PlanListener(Make({rule}), bound, {Family::kV4}, {}, kMark)->pure);
  const SocketAddress elsewhere{Address::Parse("10.9.0.9").value(), 80};
  CHECK_FALSE(PlanListener(Make({rule}), elsewhere, {Family::kV4}, {}, kMark)->latched);
}

}  // namespace
}  // namespace latchkey::broker
