// Decisions about flows, peers and protections.
#include "policy/decide.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "policy/suites.h"

namespace latchkey::policy {
namespace {

SocketAddress S(const char* text, uint16_t port) { return {Address::Parse(text).value(), port}; }

const Flow kOut{Direction::kOut, kProtocolTcp, S("10.9.0.2", 0), S("10.9.0.1", 80)};
const Flow kIn{Direction::kIn, kProtocolTcp, S("10.9.0.2", 80), S("10.9.0.1", 40000)};

Policy One(Action action, uint32_t reqid = 0) {
  Policy policy;
  policy.rules.resize(1);
  policy.rules[0].action = action;
  policy.rules[0].reqid = reqid;
  return policy;
}

Policy Default(Action otherwise) {
  Policy policy;
  policy.otherwise = otherwise;
  return policy;
}

SpdEntry Spd(uint8_t dir, bool block, uint32_t reqid) {
  SpdEntry entry;
  entry.dir = dir;
  entry.block = block;
  entry.bare = block;
  entry.protocol = block ? SaProtocol::kNone : SaProtocol::kEsp;
  entry.mode = block ? Mode::kUnknown : Mode::kTransport;
  entry.reqid = reqid;
  return entry;
}

const SystemPolicy kNoFile;
const std::vector<SpdEntry> kFree;
const std::vector<SpdEntry> kCovered = {Spd(1, false, 7), Spd(0, false, 7)};
const std::vector<SpdEntry> kBlocked = {Spd(0, true, 0)};

Requester Root() { return {0, Grants::All()}; }

Verdict Ask(const Policy& policy, const Requester& requester, const Flow& flow, bool same_host,
            const std::vector<SpdEntry>& spd) {
  return Decide({kNoFile, spd}, policy, requester, flow, same_host);
}

TEST_CASE("Every action, on and off the host, in both directions, under every SPD") {
  struct Row {
    const char* what;
    Policy policy;
    Flow flow;
    bool same_host;
    const std::vector<SpdEntry>& spd;
    bool root;
    Outcome outcome;
    Reason reason;
    uint32_t reqid;
  };
  const Policy protect = One(Action::kProtect);
  const Policy named = One(Action::kProtect, 42);
  const Policy bypass = One(Action::kBypass);
  const Policy discard = One(Action::kDiscard);
  const Policy system = Default(Action::kSystem);
  const Policy deny = Default(Action::kDiscard);
  constexpr Reason kOk = Reason::kNone;
  constexpr Reason kNo = Reason::kPolicyDiscard;
  constexpr Reason kLess = Reason::kUnprivilegedWeaken;
  constexpr Reason kClear = Reason::kUnprivilegedBypass;
  const std::vector<Row> rows = {
      {"protect", protect, kOut, false, kFree, false, Outcome::kProtect, kOk, 0},
      {"protect in", protect, kIn, false, kFree, false, Outcome::kProtect, kOk, 0},
      {"protect, covered", protect, kOut, false, kCovered, false, Outcome::kProtect, kOk, 7},
      {"protect by reqid", named, kOut, false, kFree, false, Outcome::kProtect, kOk, 42},
      {"another reqid", named, kOut, false, kCovered, false, Outcome::kRefuse, kLess, 42},
      {"another reqid, root", named, kOut, false, kCovered, true, Outcome::kProtect, kOk, 42},
      {"protect, blocked", protect, kOut, false, kBlocked, false, Outcome::kRefuse, kNo, 0},
      {"protect, blocked, root", protect, kOut, false, kBlocked, true, Outcome::kProtect, kOk, 0},
      {"protect in, blocked", named, kIn, false, kBlocked, false, Outcome::kRefuse, kNo, 0},
      {"protect on the host", protect, kOut, true, kFree, false, Outcome::kLocal, kOk, 0},
      {"protect on the host, covered", protect, kOut, true, kCovered, false, Outcome::kLocal, kOk,
       0},
      {"protect from the host", protect, kIn, true, kFree, false, Outcome::kRefuse,
       Reason::kLocalPeer, 0},
      {"protect from the host, root", protect, kIn, true, kFree, true, Outcome::kRefuse,
       Reason::kLocalPeer, 0},
      {"bypass", bypass, kOut, false, kFree, false, Outcome::kBypass, kOk, 0},
      {"bypass in", bypass, kIn, false, kFree, false, Outcome::kBypass, kOk, 0},
      {"bypass, covered", bypass, kOut, false, kCovered, false, Outcome::kRefuse, kClear, 0},
      {"bypass, covered, root", bypass, kOut, false, kCovered, true, Outcome::kClear, kOk, 0},
      {"bypass, blocked", bypass, kOut, false, kBlocked, false, Outcome::kRefuse, kNo, 0},
      {"bypass, blocked, root", bypass, kOut, false, kBlocked, true, Outcome::kClear, kOk, 0},
      {"bypass on the host", bypass, kOut, true, kFree, false, Outcome::kLocal, kOk, 0},
      {"bypass on the host, covered", bypass, kOut, true, kCovered, false, Outcome::kLocal, kOk, 0},
      {"bypass from the host", bypass, kIn, true, kFree, false, Outcome::kLocal, kOk, 0},
      {"discard", discard, kOut, false, kFree, false, Outcome::kRefuse, kNo, 0},
      {"discard, root", discard, kOut, false, kFree, true, Outcome::kRefuse, kNo, 0},
      {"discard on the host", discard, kOut, true, kFree, false, Outcome::kRefuse, kNo, 0},
      {"discard from the host", discard, kIn, true, kFree, false, Outcome::kRefuse, kNo, 0},
      {"system", system, kOut, false, kFree, false, Outcome::kBypass, kOk, 0},
      {"system, covered", system, kOut, false, kCovered, false, Outcome::kProtect, kOk, 7},
      {"system in, covered", system, kIn, false, kCovered, false, Outcome::kProtect, kOk, 7},
      {"system, blocked", system, kOut, false, kBlocked, true, Outcome::kRefuse, kNo, 0},
      {"system on the host", system, kOut, true, kFree, false, Outcome::kLocal, kOk, 0},
      {"system on the host, blocked", system, kOut, true, kBlocked, false, Outcome::kLocal, kOk, 0},
      {"system from the host", system, kIn, true, kFree, false, Outcome::kLocal, kOk, 0},
      {"default discard", deny, kOut, false, kFree, false, Outcome::kRefuse, kNo, 0},
      {"default discard on the host", deny, kOut, true, kFree, false, Outcome::kRefuse, kNo, 0},
      {"default discard from the host", deny, kIn, true, kFree, true, Outcome::kRefuse, kNo, 0},
  };
  for (const Row& row : rows) {
    INFO(row.what);
    const Requester requester = row.root ? Root() : Requester{1000, {}};
    const Verdict verdict = Ask(row.policy, requester, row.flow, row.same_host, row.spd);
    CHECK(verdict.outcome == row.outcome);
    CHECK(verdict.reason == row.reason);
    CHECK(verdict.demand.reqid == row.reqid);
    CHECK(verdict.rule == (row.policy.rules.empty() ? nullptr : row.policy.rules.data()));
    CHECK(verdict.implicit == (row.outcome == Outcome::kProtect && verdict.rule == nullptr));
  }
}

TEST_CASE("The first rule that matches decides, not the strictest") {
  Policy policy = Default(Action::kDiscard);
  policy.rules.resize(3);
  policy.rules[0].action = Action::kDiscard;
  policy.rules[0].direction = Direction::kIn;
  policy.rules[1].action = Action::kBypass;
  policy.rules[2].action = Action::kDiscard;
  const Verdict out = Ask(policy, {}, kOut, false, kFree);
  CHECK(out.outcome == Outcome::kBypass);
  CHECK(out.rule == &policy.rules[1]);
  const Verdict in = Ask(policy, {}, kIn, false, kFree);
  CHECK(in.outcome == Outcome::kRefuse);
  CHECK(in.rule == &policy.rules[0]);
}

TEST_CASE("A verdict nobody filled in refuses, a rule nobody filled in discards") {
  CHECK(Verdict{}.outcome == Outcome::kRefuse);
  CHECK(Rule{}.action == Action::kDiscard);
  CHECK(Requester{}.grants.None());
}

TEST_CASE("A peer has to be named and authenticated as asked") {
  const Identity alice{"alice", "bob", "pubkey"};
  CHECK(PeerAllowed({}, alice));
  CHECK_FALSE(PeerAllowed({}, {}));
  CHECK_FALSE(PeerAllowed({}, {"", "bob", "pubkey"}));
  CHECK(PeerAllowed({"p", {"alice"}, {}}, alice));
  CHECK(PeerAllowed({"p", {"carol", "ALICE"}, {}}, alice));
  CHECK_FALSE(PeerAllowed({"p", {"carol", "bob"}, {}}, alice));
  CHECK(PeerAllowed({"p", {"alice"}, {"psk", "pubkey"}}, alice));
  CHECK_FALSE(PeerAllowed({"p", {"alice"}, {"psk"}}, alice));
  CHECK_FALSE(PeerAllowed({"p", {}, {"psk"}}, alice));
  CHECK(PeerAllowed({"p", {}, {"pubkey"}}, alice));
  CHECK_FALSE(PeerAllowed({"p", {"alice"}, {"pubkey"}}, {"alice", "bob", ""}));
  CHECK_FALSE(PeerAllowed({"p", {""}, {}}, {}));
}

const Protection kGcm{SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
const Protection kCbc{
    SaProtocol::kEsp, Mode::kTransport, "aes-cbc", "hmac-sha2-256", 128, true, false};

bool Fits(const Protection& protection, auto change) {
  Rule rule;
  change(rule.protection);
  const Reason reason = Judge(DemandOf(rule), {"alice", "bob", "manual"}, protection);
  CHECK((reason == Reason::kNone || reason == Reason::kWeakProtection));
  return reason == Reason::kNone;
}

bool Fits(const Protection& protection) {
  return Fits(protection, [](ProtectionSpec&) {});
}

Protection But(Protection protection, auto change) {
  change(protection);
  return protection;
}

TEST_CASE("By default: ESP transport, AEAD or cipher with integrity, 128 bits, replay") {
  CHECK(Fits(kGcm));
  CHECK(Fits(kCbc));
  CHECK(Fits(But(kGcm, [](Protection& p) { p.esn = true; })));
  CHECK(Fits(But(kGcm, [](Protection& p) { p.key_bits = 128; })));
  CHECK_FALSE(Fits(Protection{}));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.protocol = SaProtocol::kAh; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.protocol = SaProtocol::kNone; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.mode = Mode::kTunnel; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.mode = Mode::kBeet; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.mode = Mode::kUnknown; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.replay = false; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.key_bits = 127; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.encryption = ""; })));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.encryption = "des3"; })));
  CHECK_FALSE(Fits(But(kCbc, [](Protection& p) { p.integrity = ""; })));
  CHECK_FALSE(Fits(But(kCbc, [](Protection& p) { p.integrity = "hmac-md5"; })));
  // A cipher in the place of the integrity, and the other way round.
  CHECK_FALSE(Fits(But(kCbc, [](Protection& p) { p.integrity = "aes-gcm-16"; })));
  CHECK_FALSE(Fits(But(kCbc, [](Protection& p) { p.encryption = "hmac-sha1"; })));
}

TEST_CASE("Without a mode, transport and tunnel will do, and nothing else") {
  const auto either = [](ProtectionSpec& spec) { spec.mode.reset(); };
  CHECK(Fits(kGcm, either));
  CHECK(Fits(But(kGcm, [](Protection& p) { p.mode = Mode::kTunnel; }), either));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.mode = Mode::kBeet; }), either));
  CHECK_FALSE(Fits(But(kGcm, [](Protection& p) { p.mode = Mode::kUnknown; }), either));
}

TEST_CASE("Each wish of a protection is held to") {
  const auto encryption = [](std::vector<std::string> names) {
    return [names](ProtectionSpec& s) { s.encryption = names; };
  };
  CHECK(Fits(kGcm, encryption({"aes-cbc", "aes-gcm-16"})));
  CHECK_FALSE(Fits(kGcm, encryption({"aes-gcm-12", "chacha20-poly1305"})));
  CHECK_FALSE(Fits(kGcm, encryption({"aes-cbc"})));
  CHECK(Fits(kCbc, encryption({"aes-cbc"})));
  const auto integrity = [](std::vector<std::string> names) {
    return [names](ProtectionSpec& s) { s.integrity = names; };
  };
  CHECK(Fits(kCbc, integrity({"hmac-sha1", "hmac-sha2-256"})));
  CHECK_FALSE(Fits(kCbc, integrity({"hmac-sha2-512"})));
  CHECK(Fits(kGcm, integrity({"hmac-sha2-512"})));  // an AEAD has none to compare
  const auto bits = [](uint16_t least) {
    return [least](ProtectionSpec& s) { s.min_key_bits = least; };
  };
  CHECK(Fits(kGcm, bits(256)));
  CHECK_FALSE(Fits(kGcm, bits(257)));
  CHECK_FALSE(Fits(kCbc, bits(129)));
  const Protection no_replay = But(kGcm, [](Protection& p) { p.replay = false; });
  CHECK(Fits(no_replay, [](ProtectionSpec& s) { s.replay_required = false; }));
  CHECK_FALSE(Fits(kGcm, [](ProtectionSpec& s) { s.esn_required = true; }));
  const Protection esn = But(kGcm, [](Protection& p) { p.esn = true; });
  CHECK(Fits(esn, [](ProtectionSpec& s) { s.esn_required = true; }));
}

TEST_CASE("The null cipher only where it is listed, and never without integrity") {
  const Protection null{
      SaProtocol::kEsp, Mode::kTransport, "null", "hmac-sha2-256", 0, true, false};
  const auto listed = [](ProtectionSpec& s) {
    s.encryption = {"null"};
    s.min_key_bits = 0;
  };
  CHECK(Fits(null, listed));
  CHECK_FALSE(Fits(null, [](ProtectionSpec& s) { s.min_key_bits = 0; }));
  CHECK_FALSE(Fits(null, [](ProtectionSpec& s) { s.encryption = {"null"}; }));  // 128 bits asked
  CHECK_FALSE(Fits(But(null, [](Protection& p) { p.integrity = ""; }), listed));
}

TEST_CASE("Every suite of the table fits a rule that lists it") {
  for (const Suite& suite : Suites()) {
    INFO(suite.name);
    if (suite.kind == Kind::kIntegrity) continue;
    const Protection protection{SaProtocol::kEsp,
                                Mode::kTransport,
                                std::string(suite.name),
                                suite.kind == Kind::kAead ? "" : "hmac-sha1",
                                suite.key_bits.front(),
                                true,
                                false};
    CHECK(Fits(protection, [&](ProtectionSpec& s) {
      s.encryption = {std::string(suite.name)};
      s.min_key_bits = suite.key_bits.front();
    }));
  }
}

TEST_CASE("The peer is judged first, the protection then") {
  Rule rule;
  rule.peer.ids = {"alice"};
  CHECK(Judge(DemandOf(rule), {"alice", "", ""}, kGcm) == Reason::kNone);
  CHECK(Judge(DemandOf(rule), {"mallory", "", ""}, kGcm) == Reason::kPeerMismatch);
  CHECK(Judge(DemandOf(rule), {"mallory", "", ""}, Protection{}) == Reason::kPeerMismatch);
  CHECK(Judge(DemandOf(rule), {"alice", "", ""}, Protection{}) == Reason::kWeakProtection);
  CHECK(Judge(DemandOf(Rule{}), {}, kGcm) == Reason::kPeerMismatch);
}

}  // namespace
}  // namespace latchkey::policy
