// Random policies: what the shim settles alone is what Decide() would have said.
#include <netinet/in.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <vector>

#include "policy/compile.h"
#include "policy/decide.h"
#include "policy/page_reader.h"

namespace latchkey::policy {
namespace {

using wire::Settle;

// Random policies over few addresses and ports, so that rules and flows meet often.
class Dice {
 public:
  explicit Dice(uint32_t seed) : engine_(seed) {}

  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(engine_()) % limit; }

  Prefix SomePrefix() {
    static const std::vector<Prefix> kSome = {
        P("0.0.0.0/0"), P("::/0"),        P("10.0.0.0/8"),  P("10.9.0.0/23"), P("10.9.0.0/31"),
        P("10.9.0.1"),  P("fd00::/8"),    P("fd00::2/127"), P("fd00::3"),     P("127.0.0.0/8"),
        P("::1"),       P("128.0.0.0/1"), P("::/1"),        P("127.0.0.1"),   P("8000::/1")};
    return kSome[Below(static_cast<uint32_t>(kSome.size()))];
  }

  SocketAddress SomeRemote() {
    static const std::vector<Address> kSome = {
        *Address::Parse("10.9.0.0"), *Address::Parse("10.9.0.1"),   *Address::Parse("10.9.1.255"),
        *Address::Parse("10.9.2.0"), *Address::Parse("192.0.2.1"),  *Address::Parse("fd00::2"),
        *Address::Parse("fd00::3"),  *Address::Parse("2001:db8::1")};
    return {kSome[Below(static_cast<uint32_t>(kSome.size()))], static_cast<uint16_t>(Below(12))};
  }

  SocketAddress SomeLocal() {
    SocketAddress local = SomeRemote();
    if (Below(3) == 0) local.address = {};
    return local;
  }

  std::vector<PortRange> SomePorts() {
    std::vector<PortRange> ranges(Below(3));
    for (PortRange& range : ranges) {
      range.low = static_cast<uint16_t>(1 + Below(10));
      range.high = static_cast<uint16_t>(range.low + Below(4));
    }
    return ranges;
  }

  std::vector<Prefix> SomePrefixes(uint32_t limit) {
    std::vector<Prefix> prefixes;
    for (uint32_t count = Below(limit); count > 0; --count) prefixes.push_back(SomePrefix());
    return prefixes;
  }

  uint8_t SomeProtocol() { return Below(2) == 0 ? kProtocolTcp : kProtocolUdp; }

  Policy SomePolicy() {
    Policy policy;
    policy.otherwise = Below(2) == 0 ? Action::kSystem : Action::kDiscard;
    // Now and then more than the table holds.
    for (uint32_t count = Below(20) == 0 ? 150 : Below(6); count > 0; --count) {
      Rule rule = Make(static_cast<Action>(Below(4)), SomePrefixes(4), SomePorts());
      rule.direction = static_cast<Direction>(1 + Below(3));
      rule.protocol = Below(2) == 0 ? 0 : SomeProtocol();
      if (Below(8) == 0) rule.local = SomePrefixes(3);
      if (Below(8) == 0) rule.local_port = SomePorts();
      policy.rules.push_back(std::move(rule));
    }
    return policy;
  }

 private:
  std::mt19937 engine_;
};

bool IsAsked(Settle settle) { return settle == Settle::kAsk || settle == Settle::kProtect; }

Outcome OutcomeOf(Settle settle) {
  return settle == Settle::kBypass ? Outcome::kBypass : Outcome::kRefuse;
}

TEST_CASE("A settled answer never differs from the decision: 100,000 random flows") {
  Dice dice(5660);
  wire::Page page{};
  uint32_t settled = 0, asked = 0, overflowed = 0, wrong = 0;
  for (int i = 0; i < 2'000; ++i) {
    const Policy policy = dice.SomePolicy();
    CompileInto(policy, &kFree, page);
    if (page.rule_count == wire::kPageRules) ++overflowed;
    for (int j = 0; j < 50; ++j) {
      Flow flow{Direction::kOut, dice.SomeProtocol(), dice.SomeLocal(), dice.SomeRemote()};
      const Settle settle = Ask(page, flow.remote, flow.protocol);
      const bool held = settle == Settle::kProtect || settle == Settle::kDiscard;
      if (held && flow.protocol == kProtocolUdp &&
          (page.flags.load() & wire::kPageDatagramRules) == 0) {
        ++wrong;
      }
      if (IsAsked(settle)) {
        ++asked;
        continue;
      }
      ++settled;
      const Verdict verdict = Decide(kFree, policy, {}, flow, /*same_host=*/false);
      if (verdict.outcome != OutcomeOf(settle)) ++wrong;
    }
  }
  CHECK(wrong == 0);
  // The test has to have met all three.
  CHECK(settled > 20'000);
  CHECK(asked > 10'000);
  CHECK(overflowed > 20);
}

TEST_CASE("Nor does it for loopback") {
  Dice dice(2);
  wire::Page page{};
  uint32_t settled = 0, wrong = 0;
  for (int i = 0; i < 5'000; ++i) {
    const Policy policy = dice.SomePolicy();
    CompileInto(policy, &kFree, page);
    for (const char* address : {"127.0.0.1", "127.0.0.2", "::1"}) {
      const Flow flow{Direction::kOut,
                      dice.SomeProtocol(),
                      {},
                      S(address, static_cast<uint16_t>(dice.Below(12)))};
      const Settle settle = Ask(page, flow.remote, flow.protocol);
      if (IsAsked(settle)) continue;
      ++settled;
      const Verdict verdict = Decide(kFree, policy, {}, flow, /*same_host=*/true);
      const Outcome expected = settle == Settle::kBypass ? Outcome::kLocal : Outcome::kRefuse;
      if (verdict.outcome != expected) ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(settled > 5'000);
}

TEST_CASE("Nor where the system asks something, whoever it is: 100,000 random flows") {
  Dice dice(108);
  wire::Page page{};
  uint32_t settled = 0, bypassed = 0, wrong = 0;
  for (int i = 0; i < 2'000; ++i) {
    const Policy policy = dice.SomePolicy();
    SystemPolicy file;
    // The same kind of rules, but what a system's file cannot have.
    if (dice.Below(2) == 0) file.rules = dice.SomePolicy().rules;
    std::erase_if(file.rules, [](const Rule& r) { return r.action == Action::kProtectOrBypass; });
    std::vector<SpdEntry> spd;
    for (uint32_t n = dice.Below(3); n > 0; --n) {
      SpdEntry entry;
      entry.dir = static_cast<uint8_t>(dice.Below(2));
      entry.priority = static_cast<uint32_t>(dice.Below(3));
      entry.block = dice.Below(3) == 0;
      entry.bare = entry.block || dice.Below(3) == 0;
      entry.protocol = SaProtocol::kEsp;
      entry.mode = Mode::kTransport;
      if (dice.Below(2) == 0) {
        const SocketAddress remote = dice.SomeRemote();
        const Prefix host{remote.address, static_cast<uint8_t>(remote.address.Bits())};
        (entry.dir == 1 ? entry.selector.destination : entry.selector.source) = host;
        entry.selector.family = remote.address.family;
      }
      if (dice.Below(2) == 0) entry.selector.protocol = dice.SomeProtocol();
      spd.push_back(entry);
    }
    const System system{file, spd};
    CompileInto(policy, &system, page);
    for (int j = 0; j < 50; ++j) {
      Flow flow{Direction::kOut, dice.SomeProtocol(), dice.SomeLocal(), dice.SomeRemote()};
      const Settle settle = Ask(page, flow.remote, flow.protocol);
      // To port 0 nobody connects; to a decision it is one not known yet.
      if (IsAsked(settle) || flow.remote.port == 0) continue;
      ++settled;
      if (settle == Settle::kBypass) ++bypassed;
      for (const bool root : {false, true}) {
        const Requester requester{root ? 0U : 1000U, root ? Grants::All() : Grants()};
        const bool same_host = flow.remote.address.IsLoopback();
        const Verdict verdict = Decide(system, policy, requester, flow, same_host);
        const bool left = verdict.outcome == Outcome::kBypass || verdict.outcome == Outcome::kLocal;
        if (left != (settle == Settle::kBypass)) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(settled > 10'000);
  CHECK(bypassed > 2'000);
}

}  // namespace
}  // namespace latchkey::policy
