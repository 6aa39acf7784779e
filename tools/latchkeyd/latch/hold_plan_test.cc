#include "tools/latchkeyd/latch/hold_plan.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

namespace latchkey::broker {
namespace {

using DatagramNeed = DatagramRegion::Need;

policy::Rule MakeRule(Direction direction, policy::Action action, const std::string& remote = "",
                      uint16_t port = 0) {
  policy::Rule rule;
  rule.name = "rule";
  rule.direction = direction;
  rule.action = action;
  if (!remote.empty()) rule.remote = {*Prefix::Parse(remote)};
  if (port != 0) rule.remote_port = {{port, port}};
  return rule;
}

struct Planner {
  policy::Policy policy;
  policy::SystemPolicy file;
  std::vector<SpdEntry> spd;
  SocketAddress local{*Address::Parse("0.0.0.0"), 53};
  policy::Grants grants;

  Result<HoldPlan> Plan() const {
    return PlanHold(policy, {file, spd}, local, {Family::kV4}, 0x80000000, grants);
  }
  static DatagramNeed At(const HoldPlan& plan, const std::string& address) {
    std::vector<DatagramNeed> found;
    for (const DatagramRegion& region : plan.regions) {
      if (region.remote.Contains(*Address::Parse(address))) found.push_back(region.need);
    }
    REQUIRE(found.size() == 1);  // they do not overlap, and leave nothing out
    return found.front();
  }
  static bool Leaves(const HoldPlan& plan, const std::string& address) {
    return std::ranges::any_of(plan.guards, [&](const Guard& guard) {
      return guard.out && guard.action == Guard::Action::kAllow &&
             guard.selector.destination.Contains(*Address::Parse(address));
    });
  }
};

TEST_CASE(
    "The first rule that covers it as an incoming one decides, then those for outgoing ones") {
  Planner planner;
  planner.policy.rules = {
      MakeRule(Direction::kOut, policy::Action::kBypass, "10.0.0.0/8"),
      MakeRule(Direction::kIn, policy::Action::kProtect, "10.1.0.0/16"),
      MakeRule(Direction::kBoth, policy::Action::kDiscard, "10.1.2.0/24"),
      MakeRule(Direction::kIn, policy::Action::kDiscard, "172.16.0.0/12"),
      MakeRule(Direction::kOut, policy::Action::kProtect, "192.168.0.0/16"),
  };
  const HoldPlan plan = *planner.Plan();
  CHECK(plan.held);
  CHECK(Planner::At(plan, "10.1.2.3") == DatagramNeed::kTag);
  CHECK(Planner::At(plan, "10.2.0.1") == DatagramNeed::kPass);
  CHECK(Planner::At(plan, "172.16.0.1") == DatagramNeed::kDrop);
  CHECK(Planner::At(plan, "192.168.0.1") == DatagramNeed::kTag);
  CHECK(Planner::At(plan, "8.8.8.8") == DatagramNeed::kPass);
  CHECK_FALSE(Planner::Leaves(plan, "10.1.2.3"));
  CHECK(Planner::Leaves(plan, "10.2.0.1"));
  CHECK_FALSE(Planner::Leaves(plan, "172.16.0.1"));
  CHECK_FALSE(Planner::Leaves(plan, "192.168.0.1"));
  CHECK(Planner::Leaves(plan, "8.8.8.8"));
  CHECK(plan.asked.empty());
}

TEST_CASE("Rules of other protocols, other local ports and other local addresses say nothing") {
  Planner planner;
  planner.local = {*Address::Parse("10.9.0.1"), 53};
  planner.policy.rules = {MakeRule(Direction::kIn, policy::Action::kProtect),
                          MakeRule(Direction::kIn, policy::Action::kProtect),
                          MakeRule(Direction::kIn, policy::Action::kProtect)};
  planner.policy.rules[0].protocol = kProtocolTcp;
  planner.policy.rules[1].local_port = {{54, 60}};
  planner.policy.rules[2].local = {*Prefix::Parse("10.9.0.2")};
  CHECK_FALSE(planner.Plan()->held);
  planner.policy.rules[1].local_port = {{50, 60}};
  CHECK(planner.Plan()->held);
  planner.policy.rules[1].local_port.clear();
  planner.local.address = *Address::Parse("0.0.0.0");
  planner.policy.rules.erase(planner.policy.rules.begin() + 1);
  CHECK(planner.Plan().error().reason == Reason::kUnsupported);
}

TEST_CASE("Where ports matter nothing moves unasked") {
  Planner planner;
  planner.policy.rules = {
      MakeRule(Direction::kOut, policy::Action::kProtect, "10.0.0.0/8", 53),
      MakeRule(Direction::kBoth, policy::Action::kDiscard, "11.0.0.0/8", 7),
      MakeRule(Direction::kOut, policy::Action::kBypass, "12.0.0.0/8", 7),
      MakeRule(Direction::kIn, policy::Action::kBypass, "10.1.0.0/16"),
  };
  planner.policy.rules.back().local_port = {{53, 53}};
  const HoldPlan plan = *planner.Plan();
  CHECK(plan.held);
  for (const char* remote : {"10.2.0.1", "11.0.0.1"}) {
    INFO(remote);
    CHECK(Planner::At(plan, remote) == DatagramNeed::kDrop);
    CHECK_FALSE(Planner::Leaves(plan, remote));
    CHECK(std::ranges::any_of(plan.asked, [&](const Prefix& prefix) {
      return prefix.Contains(*Address::Parse(remote));
    }));
  }
  for (const char* remote : {"10.1.0.1", "12.0.0.1"}) {
    INFO(remote);
    CHECK(Planner::At(plan, remote) == DatagramNeed::kPass);
    CHECK(Planner::Leaves(plan, remote));
  }
}

TEST_CASE("What is let in does not let out what a rule for that protects, or discards") {
  Planner planner;
  const auto at = [&planner](const std::string& address) {
    const HoldPlan plan = *planner.Plan();
    REQUIRE(plan.held);
    CHECK(Planner::Leaves(plan, address) == (Planner::At(plan, address) == DatagramNeed::kPass));
    return Planner::At(plan, address);
  };
  for (const Direction direction : {Direction::kIn, Direction::kBoth}) {
    planner.policy.rules = {
        MakeRule(Direction::kOut, policy::Action::kProtect, "10.0.0.0/8"),
        MakeRule(Direction::kOut, policy::Action::kDiscard, "11.0.0.0/8"),
        MakeRule(direction, policy::Action::kBypass),
    };
    CHECK(at("10.0.0.1") == DatagramNeed::kTag);
    CHECK(at("11.0.0.1") == DatagramNeed::kDrop);
    CHECK(at("12.0.0.1") == DatagramNeed::kPass);
    CHECK(planner.Plan()->asked.empty());
    planner.policy.rules.back().local_port = {{53, 53}};
    if (direction == Direction::kBoth) {
      CHECK(at("10.0.0.1") == DatagramNeed::kTag);
    } else {
      CHECK_FALSE(planner.Plan()->held);  // a server's
    }
  }
  planner.policy.rules = {MakeRule(Direction::kIn, policy::Action::kBypass),
                          MakeRule(Direction::kOut, policy::Action::kProtect)};
  CHECK(at("10.0.0.1") == DatagramNeed::kTag);
  planner.policy.rules[1].direction = Direction::kBoth;
  CHECK(at("10.0.0.1") == DatagramNeed::kTag);
  std::ranges::reverse(planner.policy.rules);
  CHECK(at("10.0.0.1") == DatagramNeed::kTag);
  planner.policy.rules[0].direction = Direction::kOut;
  planner.policy.rules[1].direction = Direction::kBoth;
  std::ranges::reverse(planner.policy.rules);  // an exception, of both directions
  CHECK_FALSE(planner.Plan()->held);
}

TEST_CASE("Whom a rule lets in is heard, but from ports that are to be protected") {
  Planner planner;
  planner.policy.rules = {
      MakeRule(Direction::kOut, policy::Action::kProtect, "10.0.0.0/8", 53),
      MakeRule(Direction::kOut, policy::Action::kDiscard, "10.0.0.0/8", 54),
      MakeRule(Direction::kOut, policy::Action::kBypass, "10.0.0.0/8", 55),
      MakeRule(Direction::kBoth, policy::Action::kBypass),
  };
  planner.policy.rules[0].remote_port.push_back({100, 200});
  const auto at = [&planner](const std::string& address) {
    const HoldPlan plan = *planner.Plan();
    const auto found = std::ranges::find_if(plan.regions, [&](const DatagramRegion& region) {
      return region.remote.Contains(*Address::Parse(address));
    });
    REQUIRE(found != plan.regions.end());
    CHECK_FALSE(Planner::Leaves(plan, "10.0.0.1"));  // each is asked about
    CHECK(plan.asked == std::vector<Prefix>{*Prefix::Parse("10.0.0.0/8")});
    return *found;
  };
  DatagramRegion region = at("10.0.0.1");
  CHECK(region.need == DatagramNeed::kPass);
  CHECK(region.but == std::vector<PortRange>{{53, 53}, {100, 200}, {54, 54}});
  region = at("11.0.0.1");
  CHECK(region.need == DatagramNeed::kPass);
  CHECK(region.but.empty());
  // More than the filter can tell, and what is not about ports alone: nobody is heard unasked.
  planner.policy.rules[0].remote_port = {{1, 1}, {3, 3}, {5, 5}, {7, 7}, {9, 9}, {11, 11}};
  CHECK(at("10.0.0.1").but.size() == kMostBut);
  planner.policy.rules[0].remote_port.push_back({13, 13});
  region = at("10.0.0.1");
  CHECK(region.need == DatagramNeed::kDrop);
  CHECK(region.but.empty());
  planner.policy.rules[0].remote_port = {{53, 53}};
  planner.policy.rules[0].local = {*Prefix::Parse("10.9.0.1")};
  CHECK(at("10.0.0.1").need == DatagramNeed::kDrop);
  planner.policy.rules[0].local.clear();
  planner.file.rules = {MakeRule(Direction::kOut, policy::Action::kProtect, "10.0.0.0/8", 53)};
  CHECK(at("10.0.0.1").need == DatagramNeed::kDrop);
}

// Nothing moves in clear by the plan alone that the rules would protect, or discard.
TEST_CASE("Whatever the rules, a plan lets nothing pass that the first match bars") {
  std::mt19937 random(5660);
  const auto below = [&random](uint32_t most) { return static_cast<uint32_t>(random() % most); };
  int passed = 0;
  int barred = 0;
  for (int round = 0; round < 4000; ++round) {
    Planner planner;
    for (uint32_t count = 1 + below(5); count > 0; --count) {
      const Direction direction = Direction{static_cast<uint8_t>(1 + below(3))};
      const policy::Action actions[] = {policy::Action::kBypass, policy::Action::kProtect,
                                        policy::Action::kDiscard, policy::Action::kProtectOrBypass};
      const char* remotes[] = {"", "10.0.0.0/8", "10.1.0.0/16"};
      policy::Rule rule = MakeRule(direction, actions[below(direction == Direction::kOut ? 4 : 3)],
                                   remotes[below(3)], static_cast<uint16_t>(below(3) * 40));
      if (below(3) == 0) rule.local_port = {{53, 53}};
      if (below(8) == 0) rule.local_port = {{54, 54}};
      planner.policy.rules.push_back(rule);
    }
    if (below(4) == 0) planner.policy.otherwise = policy::Action::kDiscard;
    const Result<HoldPlan> plan = planner.Plan();
    if (!plan) continue;
    for (const char* remote : {"10.1.0.1", "10.2.0.1", "11.0.0.1"}) {
      for (const uint16_t port : {40, 80, 120}) {
        const Address address = *Address::Parse(remote);
        const policy::Rule* rule = policy::FirstMatch(
            planner.policy,
            Flow{Direction::kBoth, kProtocolUdp, planner.local, SocketAddress{address, port}});
        const policy::Action action = rule != nullptr ? rule->action : planner.policy.otherwise;
        const auto region = std::ranges::find_if(plan->regions, [&](const DatagramRegion& each) {
          return each.remote.Contains(address);
        });
        REQUIRE(region != plan->regions.end());
        const bool but = std::ranges::any_of(
            region->but, [port](const PortRange& range) { return range.Contains(port); });
        const bool comes = region->need == DatagramNeed::kPass && !but;
        const bool leaves = Planner::Leaves(*plan, remote);
        INFO("round " << round << ", " << remote << " " << port);
        if (policy::Bars(action)) {
          ++barred;
          REQUIRE_FALSE(comes);
          REQUIRE_FALSE(leaves);
          REQUIRE(plan->held);
        } else if (comes && leaves) {
          ++passed;
        }
      }
    }
  }
  CHECK(passed > 1000);
  CHECK(barred > 1000);
}

TEST_CASE("A protected region stays one where ports matter, for those that were asked about") {
  Planner planner;
  planner.policy.rules = {MakeRule(Direction::kIn, policy::Action::kDiscard, "10.0.0.0/8", 7),
                          MakeRule(Direction::kIn, policy::Action::kProtect)};
  const HoldPlan plan = *planner.Plan();
  CHECK(Planner::At(plan, "10.2.0.1") == DatagramNeed::kTag);
  CHECK(plan.asked == std::vector<Prefix>{*Prefix::Parse("10.0.0.0/8")});
}

TEST_CASE("What the system's file asks lets nothing pass by itself") {
  Planner planner;
  planner.policy.rules = {MakeRule(Direction::kIn, policy::Action::kBypass, "10.0.0.0/8")};
  CHECK_FALSE(planner.Plan()->held);
  planner.file.rules = {MakeRule(Direction::kBoth, policy::Action::kProtect, "10.1.0.0/16")};
  const HoldPlan plan = *planner.Plan();
  CHECK(plan.held);
  CHECK(Planner::At(plan, "10.1.0.1") == DatagramNeed::kDrop);
  CHECK_FALSE(Planner::Leaves(plan, "10.1.0.1"));
  CHECK(Planner::Leaves(plan, "10.2.0.1"));
}

TEST_CASE("Of the same host comes what may come by TCP: answers, but nobody who would be served") {
  Planner planner;
  const auto comes = [&planner](const std::string& address) {
    const HoldPlan plan = *planner.Plan();
    const auto found = std::ranges::find_if(plan.regions, [&](const DatagramRegion& region) {
      return region.remote.Contains(*Address::Parse(address));
    });
    REQUIRE(found != plan.regions.end());
    return found->need == DatagramNeed::kPass || found->same_host;
  };
  // Whom a rule has the program reach under SAs, whatever the port.
  planner.policy.rules = {MakeRule(Direction::kOut, policy::Action::kProtect, "", 53)};
  CHECK(comes("127.0.0.53"));
  planner.policy.rules = {MakeRule(Direction::kOut, policy::Action::kProtect)};
  CHECK(comes("127.0.0.53"));
  planner.policy.otherwise = policy::Action::kDiscard;
  planner.policy.rules[0].remote_port = {{53, 53}};
  CHECK(comes("127.0.0.53"));
  planner.policy.rules.push_back(MakeRule(Direction::kOut, policy::Action::kDiscard));
  planner.policy.rules[0].remote = {*Prefix::Parse("10.0.0.0/8")};
  CHECK_FALSE(comes("127.0.0.53"));
  CHECK(comes("10.0.0.1"));
  // Whom it serves under SAs, the host's own programs can be none of.
  planner.policy.otherwise = policy::Action::kSystem;
  for (const Direction direction : {Direction::kIn, Direction::kBoth}) {
    planner.policy.rules = {MakeRule(direction, policy::Action::kProtect)};
    CHECK_FALSE(comes("127.0.0.1"));
    planner.policy.rules = {MakeRule(direction, policy::Action::kProtect, "", 53)};
    CHECK_FALSE(comes("127.0.0.1"));
    planner.policy.rules.insert(planner.policy.rules.begin(),
                                MakeRule(Direction::kIn, policy::Action::kBypass, "127.0.0.0/8"));
    CHECK(comes("127.0.0.1"));
  }
  // The system's floor is no more within the host than it is for TCP.
  planner.policy.rules = {MakeRule(Direction::kIn, policy::Action::kBypass, "10.0.0.0/8")};
  planner.file.rules = {MakeRule(Direction::kBoth, policy::Action::kProtect)};
  CHECK(comes("127.0.0.1"));
  planner.file.rules = {MakeRule(Direction::kBoth, policy::Action::kDiscard, "127.0.0.0/8")};
  CHECK_FALSE(comes("127.0.0.1"));
}

TEST_CASE("Against the SPD only who is privileged, and then both ways") {
  Planner planner;
  planner.policy.rules = {MakeRule(Direction::kIn, policy::Action::kBypass)};
  SpdEntry protect;
  protect.dir = 1;
  protect.bare = false;
  protect.selector.family = Family::kV4;
  protect.selector.source = protect.selector.destination = *Prefix::Parse("0.0.0.0/0");
  planner.spd = {protect};
  CHECK_FALSE(planner.Plan()->held);
  CHECK(planner.Plan()->guards.empty());
  planner.grants.Add(policy::Grant::kBypass);
  const HoldPlan plan = *planner.Plan();
  CHECK(plan.held);
  CHECK(plan.guards.size() == 2);
  for (const Guard& guard : plan.guards) CHECK(guard.selector.protocol == kProtocolUdp);
}

TEST_CASE("Too many regions are an error, and so is it when nothing at all may move") {
  Planner planner;
  for (int i = 0; i < 300; ++i) {
    planner.policy.rules.push_back(
        MakeRule(Direction::kIn, policy::Action::kProtect,
                 "10." + std::to_string(i / 100) + "." + std::to_string(i % 100) + ".1"));
  }
  CHECK(planner.Plan().error().reason == Reason::kUnsupported);
  planner.policy.rules.clear();
  planner.policy.otherwise = policy::Action::kDiscard;
  CHECK(planner.Plan().error().reason == Reason::kPolicyDiscard);
}

}  // namespace
}  // namespace latchkey::broker
