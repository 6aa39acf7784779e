// Properties of the privilege table over random policies.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "policy/decide.h"
#include "policy/privilege_fixture.h"

namespace latchkey::policy {
namespace {

// ---- random policies ----

class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {
    static constexpr const char* kNames[] = {"aes-gcm-16", "aes-gcm-8", "chacha20-poly1305",
                                             "aes-cbc"};
    for (int i = 0; i < 48; ++i) {
      ProtectionSpec spec;
      for (const char* name : kNames) {
        if (Below(3) == 0) spec.encryption.emplace_back(name);
      }
      if (Below(6) == 0) spec.protocol = SaProtocol::kAh;
      if (Below(4) == 0) spec.integrity = {"hmac-sha2-256"};
      if (Below(3) == 0) spec.min_key_bits = 256;
      if (Below(4) == 0) spec.mode = Below(2) == 0 ? std::optional<Mode>() : Mode::kTunnel;
      spec.replay_required = Below(2) == 0;
      spec.esn_required = Below(4) == 0;
      specs_.push_back(spec);
      sets_.push_back(Accepted(spec));
    }
  }

  unsigned Below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }

  Rule RandomRule(std::initializer_list<Action> actions) {
    Rule rule;
    rule.action = *(actions.begin() + Below(static_cast<unsigned>(actions.size())));
    static const Prefix kPrefixes[] = {*Prefix::Parse("10.0.0.0/8"), *Prefix::Parse("10.9.0.0/24"),
                                       *Prefix::Parse("10.9.0.1"), *Prefix::Parse("fd00::/16")};
    if (Below(2) == 0) rule.remote = {kPrefixes[Below(4)]};
    if (Below(4) == 0) rule.local = {kPrefixes[Below(4)]};
    if (Below(3) == 0) rule.remote_port = {PortRange{80, static_cast<uint16_t>(80 + Below(3))}};
    if (Below(5) == 0) rule.local_port = {PortRange{80, 90}};
    if (Below(3) == 0) rule.direction = Below(2) == 0 ? Direction::kOut : Direction::kIn;
    const size_t which = Below(static_cast<unsigned>(specs_.size()));
    rule.protection = specs_[which];
    rule.algorithms = sets_[which];
    if (Below(6) == 0) rule.reqid = 1 + Below(3);
    return rule;
  }

  SystemPolicy RandomFile() {
    SystemPolicy file;
    if (Below(2) == 0) {
      for (const char* suite : {"chacha20-poly1305", "aes-gcm-16", "aes-gcm-8"}) {
        if (file.suites.empty() || Below(3) != 0) file.suites.BeginClass();
        (void)file.suites.Add(suite);
      }
    }
    for (unsigned i = Below(4); i > 0; --i) {
      file.rules.push_back(RandomRule({Action::kProtect, Action::kDiscard, Action::kBypass}));
    }
    return file;
  }

  std::vector<SpdEntry> RandomSpd() {
    std::vector<SpdEntry> spd;
    // Of two ways' reqids the outgoing one's counts, so they are the same one here.
    const uint32_t reqid = 1 + Below(3);
    for (unsigned i = Below(3); i > 0; --i) {
      SpdEntry entry;
      entry.dir = static_cast<uint8_t>(Below(2));
      entry.priority = Below(4);
      entry.index = i;
      entry.block = Below(4) == 0;
      entry.bare = entry.block || Below(3) == 0;
      entry.protocol = Below(5) == 0 ? SaProtocol::kAh : SaProtocol::kEsp;
      entry.mode = Below(5) == 0 ? Mode::kTunnel : Mode::kTransport;
      entry.reqid = Below(4) == 0 ? 0 : reqid;
      if (Below(2) == 0) {
        entry.selector.destination_port = 80;
        entry.selector.destination_mask = 0xffff;
      }
      spd.push_back(entry);
    }
    return spd;
  }

  Policy RandomPolicy() {
    Policy policy;
    for (unsigned i = Below(4); i > 0; --i) {
      policy.rules.push_back(RandomRule(
          {Action::kProtect, Action::kProtectOrBypass, Action::kBypass, Action::kDiscard}));
    }
    if (Below(4) == 0) policy.otherwise = Action::kDiscard;
    return policy;
  }

  Flow RandomFlow() {
    static const Address kAddresses[] = {*Address::Parse("10.9.0.1"), *Address::Parse("10.1.1.1"),
                                         *Address::Parse("192.0.2.1")};
    Flow flow = kOut;
    if (Below(2) == 0) flow.direction = Direction::kIn;
    flow.remote = {kAddresses[Below(3)], static_cast<uint16_t>(79 + Below(4))};
    flow.local = {kAddresses[Below(3)], static_cast<uint16_t>(Below(2) == 0 ? 0 : 80)};
    return flow;
  }

 private:
  std::mt19937 random_;
  std::vector<ProtectionSpec> specs_;
  std::vector<AlgorithmSet> sets_;
};

bool Within(const AlgorithmSet& inner, const AlgorithmSet& outer) {
  return (inner & ~outer).none();
}

// True when everything that `less` lets happen to a flow, `more` does too.
bool AtLeastAsFree(const Verdict& more, const Verdict& less) {
  switch (less.outcome) {
    case Outcome::kRefuse:
      return true;
    case Outcome::kLocal:
    case Outcome::kBypass:
    case Outcome::kClear:
      return more.outcome == Outcome::kLocal || more.outcome == Outcome::kBypass ||
             more.outcome == Outcome::kClear;
    case Outcome::kProtect:
      break;
  }
  if (more.outcome == Outcome::kRefuse) return false;
  if (more.outcome != Outcome::kProtect) return true;
  if (less.permit && !more.permit) return false;
  return Within(less.demand.algorithms, more.demand.algorithms) &&
         (!more.demand.mode || more.demand.mode == less.demand.mode) &&
         (!more.demand.replay || less.demand.replay) && (!more.demand.esn || less.demand.esn);
}

// True when the flow gets no less than the system asks.
bool MeetsSystem(const Verdict& verdict, bool same_host) {
  const SystemAsk& ask = verdict.system;
  if (verdict.outcome == Outcome::kRefuse) return true;
  if (ask.action == SystemAction::kDiscard) return false;
  if (ask.action == SystemAction::kBypass || same_host) return true;
  return verdict.outcome == Outcome::kProtect && !verdict.permit &&
         Within(verdict.demand.algorithms, ask.algorithms) &&
         (ask.mode == Mode::kUnknown || verdict.demand.mode == ask.mode) &&
         (!ask.replay || verdict.demand.replay) && (!ask.esn || verdict.demand.esn);
}

// Takes one entry away, or has it allow what it covers: what is asked by it is asked no more.
// (Taken away, an entry can bare another one behind it that asks more; so the last of its way.)
std::vector<SpdEntry> LessOf(std::vector<SpdEntry> spd, size_t which, bool take) {
  if (take) {
    spd.erase(spd.begin() + static_cast<std::ptrdiff_t>(which));
  } else {
    spd[which].block = false;
    spd[which].bare = true;
  }
  return spd;
}

bool IsLast(const std::vector<SpdEntry>& spd, size_t which) {
  return std::ranges::none_of(spd, [&](const SpdEntry& entry) {
    return entry.dir == spd[which].dir && entry.index != spd[which].index &&
           entry.priority >= spd[which].priority;
  });
}

TEST_CASE("A million random cases: grants only add, rules of the system only take away") {
  Generator make(5660);
  int cases = 0;
  int differed[5] = {0, 0, 0, 0, 0};
  for (int round = 0; round < 25'000; ++round) {
    const SystemPolicy file = make.RandomFile();
    const std::vector<SpdEntry> spd = make.RandomSpd();
    const Policy policy = make.RandomPolicy();
    for (int i = 0; i < 40; ++i, ++cases) {
      const Flow flow = make.RandomFlow();
      const bool same_host = make.Below(8) == 0;
      const unsigned bits = make.Below(8);
      const Requester requester{1000, GrantsOf(bits)};
      const Verdict verdict = Decide({file, spd}, policy, requester, flow, same_host);
      // Nobody without grants ends below the system.
      const Verdict plain = Decide({file, spd}, policy, {1000, {}}, flow, same_host);
      if (!MeetsSystem(plain, same_host)) FAIL("below the system, round " << round);
      if (plain.system.action != SystemAction::kBypass) ++differed[0];
      // Another grant never forbids.
      const unsigned more = bits | 1U << make.Below(3);
      const Verdict freer = Decide({file, spd}, policy, {1000, GrantsOf(more)}, flow, same_host);
      if (!AtLeastAsFree(freer, verdict)) FAIL("a grant forbids, round " << round);
      if (freer.outcome != verdict.outcome) ++differed[1];
      // Without one entry of the SPD that asks for something less is asked; without one that allows
      // it, more may be. (Of a flow whose ports are known: else several entries may come to count,
      // and the first of the strictest speaks for all. And who may override a discard gets past it
      // by any protection, so past less than by a template: not he.)
      if (!spd.empty()) {
        const Requester held{1000, GrantsOf(bits & 3)};
        Flow whole = flow;
        if (whole.local.port == 0) whole.local.port = 80;
        const size_t which = make.Below(static_cast<unsigned>(spd.size()));
        const bool asks = spd[which].block || !spd[which].bare;
        const bool take = !asks || IsLast(spd, which);
        const std::vector<SpdEntry> fewer = LessOf(spd, which, take);
        const Verdict with = Decide({file, spd}, policy, held, whole, same_host);
        const Verdict without = Decide({file, fewer}, policy, held, whole, same_host);
        const bool freer_now = asks ? AtLeastAsFree(without, with) : AtLeastAsFree(with, without);
        if (!freer_now) {
          FAIL("an entry of the SPD the wrong way round, round " << round << " of " << spd.size());
        }
        if (without.outcome != with.outcome) ++differed[3];
      }
      // A rule of the system that protects or discards, taken away, never protects more; one that
      // bypasses is an exception, without which never less is asked.
      if (file.rules.empty()) continue;
      SystemPolicy fewer = file;
      const auto which = fewer.rules.begin() + make.Below(static_cast<unsigned>(file.rules.size()));
      const bool exception = which->action == Action::kBypass;
      fewer.rules.erase(which);
      const Verdict without = Decide({fewer, spd}, policy, requester, flow, same_host);
      const bool freer_now =
          exception ? AtLeastAsFree(verdict, without) : AtLeastAsFree(without, verdict);
      if (!freer_now) FAIL("a rule of the system the wrong way round, round " << round);
      if (without.outcome != verdict.outcome) ++differed[exception ? 4 : 2];
    }
  }
  CHECK(cases == 1'000'000);
  // The cases do speak of what they are about.
  CHECK(differed[0] > 100'000);
  CHECK(differed[1] > 10'000);
  CHECK(differed[2] > 10'000);
  CHECK(differed[3] > 10'000);
  CHECK(differed[4] > 1'000);
}

}  // namespace
}  // namespace latchkey::policy
