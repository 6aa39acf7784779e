// The privilege table: every request under every system policy with every set of grants, against a
// table written by hand.
#include <catch2/catch.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "policy/decide.h"
#include "policy/privilege_fixture.h"

namespace latchkey::policy {
namespace {

const std::vector<SpdEntry> kNoSpd;

Rule MakeRule(Action action, std::vector<std::string> encryption = {}) {
  Rule rule;
  rule.action = action;
  rule.protection.encryption = std::move(encryption);
  return rule;
}

Rule Ah(Action action) {
  Rule rule;
  rule.action = action;
  rule.protection.protocol = SaProtocol::kAh;
  return rule;
}

Policy PolicyOf(Rule rule) {
  Policy policy;
  policy.rules.push_back(std::move(rule));
  return policy;
}

char Letter(const Verdict& verdict) {
  switch (verdict.outcome) {
    case Outcome::kProtect:
      if (verdict.implicit) return verdict.permit ? '?' : 'I';
      return verdict.permit ? 'O' : 'P';
    case Outcome::kBypass:
      return 'L';
    case Outcome::kClear:
      return verdict.permit ? 'C' : '?';
    case Outcome::kLocal:
      return '?';
    case Outcome::kRefuse:
      break;
  }
  switch (verdict.reason) {
    case Reason::kPolicyDiscard:
      return 'D';
    case Reason::kUnprivilegedBypass:
      return 'B';
    case Reason::kUnprivilegedWeaken:
      return 'W';
    default:
      return '?';
  }
}

// The floor is aes-gcm-16. With the classes, chacha20 is stronger, aes-gcm-8 weaker, and aes-cbc is
// in none.
SystemPolicy File(const char* kind) {
  SystemPolicy file;
  const std::string_view name = kind;
  if (name == "bypass") file.rules.push_back(MakeRule(Action::kBypass));
  if (name == "discard") file.rules.push_back(MakeRule(Action::kDiscard));
  if (name.starts_with("protect")) {
    file.rules.push_back(MakeRule(Action::kProtect, {"aes-gcm-16"}));
  }
  if (name == "protect, classes") {
    for (const char* suite : {"chacha20-poly1305", "aes-gcm-16", "aes-gcm-8"}) {
      file.suites.BeginClass();
      REQUIRE(file.suites.Add(suite).empty());
    }
  }
  return file;
}

TEST_CASE("The privilege table, whole") {
  struct Request {
    const char* name;
    Policy policy;
  };
  std::vector<Request> requests;
  for (const Action action : {Action::kProtect, Action::kProtectOrBypass}) {
    for (const char* suite : {"aes-gcm-16", "chacha20-poly1305", "aes-gcm-8", "aes-cbc"}) {
      requests.push_back({suite, PolicyOf(MakeRule(action, {suite}))});
    }
  }
  requests.push_back({"bypass", PolicyOf(MakeRule(Action::kBypass))});
  requests.push_back({"discard", PolicyOf(MakeRule(Action::kDiscard))});
  requests.push_back({"system", Policy{}});

  // P protected as asked, O protected or in clear, I protected because the system says so, L left
  // to the SPD (which asks nothing), C in clear against the system; refused: D policy-discard, B
  // unprivileged-bypass, W unprivileged-weaken. One letter for each set of grants: none, b, w, bw,
  // o, ob, ow, obw.
  struct Row {
    const char* system;
    const char* expected[11];
  };
  const Row rows[] = {
      {"nothing",
       {"PPPPPPPP", "PPPPPPPP", "PPPPPPPP", "PPPPPPPP",  // protect: same, stronger, weaker, other
        "OOOOOOOO", "OOOOOOOO", "OOOOOOOO", "OOOOOOOO",  // protect-or-bypass: likewise
        "LLLLLLLL", "DDDDDDDD", "LLLLLLLL"}},            // bypass, discard, system
      {"bypass",
       {"PPPPPPPP", "PPPPPPPP", "PPPPPPPP", "PPPPPPPP",  //
        "OOOOOOOO", "OOOOOOOO", "OOOOOOOO", "OOOOOOOO",  //
        "LLLLLLLL", "DDDDDDDD", "LLLLLLLL"}},
      {"protect, classes",
       {"PPPPPPPP", "PPPPPPPP", "WWPPWWPP", "WWPPWWPP",  //
        "POPOPOPO", "POPOPOPO", "WWPOWWPO", "WWPOWWPO",  //
        "BCBCBCBC", "DDDDDDDD", "IIIIIIII"}},
      {"protect, no classes",
       {"PPPPPPPP", "WWPPWWPP", "WWPPWWPP", "WWPPWWPP",  //
        "POPOPOPO", "WWPOWWPO", "WWPOWWPO", "WWPOWWPO",  //
        "BCBCBCBC", "DDDDDDDD", "IIIIIIII"}},
      {"discard",
       {"DDDDPPPP", "DDDDPPPP", "DDDDPPPP", "DDDDPPPP",  //
        "DDDDPOPO", "DDDDPOPO", "DDDDPOPO", "DDDDPOPO",  //
        "DDDDDCDC", "DDDDDDDD", "DDDDDDDD"}},
  };
  for (const Row& row : rows) {
    const SystemPolicy file = File(row.system);
    for (size_t i = 0; i < requests.size(); ++i) {
      // Who connects makes no difference.
      for (const Flow& flow : {kOut, kIn}) {
        INFO(row.system << " / " << requests[i].name << " (" << i << ")"
                        << (flow.direction == Direction::kIn ? " in" : " out"));
        std::string got;
        for (unsigned bits = 0; bits < 8; ++bits) {
          got += Letter(
              Decide({file, kNoSpd}, requests[i].policy, {1000, GrantsOf(bits)}, flow, false));
        }
        CHECK(got == row.expected[i]);
      }
    }
  }
}

TEST_CASE("The SPD asks for a protocol and a mode: other ones need the grant") {
  const Flow flow = GENERATE(kOut, kIn);
  SpdEntry out;
  // Of both ways each counts, whoever connects.
  out.dir = GENERATE(uint8_t{0}, uint8_t{1});
  out.bare = false;
  out.protocol = SaProtocol::kEsp;
  out.mode = Mode::kTransport;
  out.reqid = 7;
  const SystemPolicy file;
  const auto letters = [&](const SpdEntry& entry, const Policy& policy) {
    std::string got;
    const std::vector<SpdEntry> spd = {entry};
    for (unsigned bits = 0; bits < 8; ++bits) {
      got += Letter(Decide({file, spd}, policy, {1000, GrantsOf(bits)}, flow, false));
    }
    return got;
  };
  const Policy esp = PolicyOf(MakeRule(Action::kProtect));
  const Policy ah = PolicyOf(Ah(Action::kProtect));
  CHECK(letters(out, esp) == "PPPPPPPP");
  CHECK(letters(out, ah) == "WWPPWWPP");
  CHECK(letters(out, Policy{}) == "IIIIIIII");
  CHECK(letters(out, PolicyOf(MakeRule(Action::kBypass))) == "BCBCBCBC");
  SpdEntry tunnel = out;
  tunnel.mode = Mode::kTunnel;
  CHECK(letters(tunnel, esp) == "WWPPWWPP");
  SpdEntry authentic = out;
  authentic.protocol = SaProtocol::kAh;
  CHECK(letters(authentic, esp) == "WWPPWWPP");
  CHECK(letters(authentic, ah) == "PPPPPPPP");
  SpdEntry block = out;
  block.block = true;
  CHECK(letters(block, esp) == "DDDDPPPP");
  CHECK(letters(block, Policy{}) == "DDDDDDDD");
}

}  // namespace
}  // namespace latchkey::policy
