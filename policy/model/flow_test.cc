// Selectors and look-ups in the SPD.
#include "policy/model/flow.h"

#include <catch2/catch.hpp>
#include <vector>

namespace latchkey {
namespace {

Address A(const char* text) { return Address::Parse(text).value(); }
SocketAddress S(const char* text, uint16_t port) { return {A(text), port}; }
Prefix P(const char* text) { return Prefix::Parse(text).value(); }

const SocketAddress kHere = S("10.9.0.2", 40000);
const SocketAddress kThere = S("10.9.0.1", 80);
const Flow kOutgoing{Direction::kOut, kProtocolTcp, kHere, kThere};

Selector Wide(const char* source = "0.0.0.0/0", const char* destination = "0.0.0.0/0") {
  return Selector{Family::kV4, P(source), P(destination), 0, 0, 0, 0, 0};
}

SpdEntry Entry(uint8_t dir, uint32_t index, uint32_t priority, SystemAction action,
               uint32_t reqid = 0, const Selector& selector = Wide()) {
  SpdEntry entry;
  entry.selector = selector;
  entry.dir = dir;
  entry.index = index;
  entry.priority = priority;
  entry.block = action == SystemAction::kDiscard;
  entry.bare = action != SystemAction::kProtect;
  entry.reqid = reqid;
  return entry;
}

SpdEntry Out(uint32_t index, uint32_t priority, SystemAction action, uint32_t reqid = 0,
             const Selector& selector = Wide()) {
  return Entry(1, index, priority, action, reqid, selector);
}

void Expect(const std::vector<SpdEntry>& spd, const Flow& flow, bool out, SystemAction action,
            uint32_t reqid = 0) {
  const SystemView view = LookUpSpd(spd, flow, out);
  CHECK(view.action == action);
  CHECK(view.reqid == reqid);
}

TEST_CASE("A flow stays on the host when it goes to loopback or to its own address") {
  CHECK(Flow{Direction::kOut, 6, kHere, S("127.0.0.1", 80)}.SameHost());
  CHECK(Flow{Direction::kOut, 6, S("fd00::1", 1), S("::1", 80)}.SameHost());
  CHECK(Flow{Direction::kOut, 6, kHere, S("10.9.0.2", 80)}.SameHost());
  CHECK_FALSE(kOutgoing.SameHost());
  CHECK_FALSE(Flow{Direction::kOut, 6, S("0.0.0.0", 0), kThere}.SameHost());
  CHECK_FALSE(Flow{}.SameHost());
}

TEST_CASE("Selectors match as the kernel does") {
  struct Row {
    const char* what;
    Selector selector;
    bool matches;
  };
  const std::vector<Row> rows = {
      {"both families", Selector{}, true},
      {"wide", Wide(), true},
      {"other family", Selector{Family::kV6, P("::/0"), P("::/0"), 0, 0, 0, 0, 0}, false},
      {"source in", Wide("10.9.0.2"), true},
      {"source out", Wide("10.9.0.1"), false},
      {"destination in", Wide("0.0.0.0/0", "10.9.0.0/31"), true},
      {"destination out", Wide("0.0.0.0/0", "10.9.0.2/31"), false},
      {"tcp", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 0, 0, 0, 0}, true},
      {"udp", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 17, 0, 0, 0, 0}, false},
      {"port", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 0, 0, 80, 0xffff}, true},
      {"port off", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 0, 0, 81, 0xffff},
       false},
      {"port mask", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 0, 0, 64, 0xffc0},
       true},
      {"port mask 0", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 7, 0, 7, 0}, true},
      {"source port", Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 40000, 0xffff, 0, 0},
       true},
      {"source port off",
       Selector{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 40001, 0xffff, 0, 0}, false},
  };
  for (const Row& row : rows) {
    INFO(row.what);
    CHECK(row.selector.Matches(kProtocolTcp, kHere, kThere) == row.matches);
  }
}

TEST_CASE("What is not known yet might match") {
  Selector selector{Family::kV4, P("10.9.0.2"), P("10.9.0.1"), 6, 22, 0xffff, 80, 0xffff};
  CHECK_FALSE(selector.Matches(6, kHere, kThere));
  CHECK(selector.Matches(6, S("10.9.0.2", 0), kThere));
  CHECK(selector.Matches(6, S("10.9.0.2", 0), S("10.9.0.1", 0)));
  CHECK(selector.Matches(6, SocketAddress{}, kThere));
  CHECK(selector.Matches(6, S("10.9.0.2", 0), SocketAddress{}));
  CHECK(selector.Matches(6, SocketAddress{}, SocketAddress{}));
  // The end that is known still has to fit, in family too.
  CHECK_FALSE(selector.Matches(6, SocketAddress{}, S("10.9.0.3", 80)));
  CHECK_FALSE(selector.Matches(6, SocketAddress{}, S("fd00::1", 80)));
  CHECK_FALSE(selector.Matches(6, S("fd00::1", 0), SocketAddress{}));
}

TEST_CASE("An SPD with nothing to say bypasses") {
  Expect({}, kOutgoing, true, SystemAction::kBypass);
  Expect({Out(1, 1, SystemAction::kDiscard, 0, Wide("0.0.0.0/0", "192.0.2.0/24"))}, kOutgoing, true,
         SystemAction::kBypass);
}

TEST_CASE("The entry decides: block, bare, template") {
  Expect({Out(1, 1, SystemAction::kDiscard)}, kOutgoing, true, SystemAction::kDiscard);
  Expect({Out(1, 1, SystemAction::kBypass)}, kOutgoing, true, SystemAction::kBypass);
  Expect({Out(1, 1, SystemAction::kProtect, 7)}, kOutgoing, true, SystemAction::kProtect, 7);
  Expect({Out(1, 1, SystemAction::kProtect, 0)}, kOutgoing, true, SystemAction::kProtect, 0);
}

TEST_CASE("The lowest priority number wins, then the lower index") {
  const SpdEntry protect = Out(9, 10, SystemAction::kProtect, 7);
  const SpdEntry block = Out(1, 20, SystemAction::kDiscard);
  Expect({block, protect}, kOutgoing, true, SystemAction::kProtect, 7);
  Expect({protect, block}, kOutgoing, true, SystemAction::kProtect, 7);
  // Of one priority the older, and the dump has the newest first.
  const SpdEntry older = Out(1, 10, SystemAction::kProtect, 1);
  const SpdEntry newer = Out(9, 10, SystemAction::kProtect, 2);
  Expect({newer, older}, kOutgoing, true, SystemAction::kProtect, 1);
  Expect({older, newer}, kOutgoing, true, SystemAction::kProtect, 1);
}

TEST_CASE("Entries of another direction, a mark or an interface are left out") {
  for (const uint8_t dir : {0, 2, 3, 4}) {
    Expect({Entry(dir, 1, 0, SystemAction::kDiscard)}, kOutgoing, true, SystemAction::kBypass);
  }
  SpdEntry marked = Out(1, 0, SystemAction::kDiscard);
  marked.mark_mask = 0x80000000;
  SpdEntry tied = Out(2, 0, SystemAction::kDiscard);
  tied.if_id = 4;
  Expect({marked, tied}, kOutgoing, true, SystemAction::kBypass);
  Expect({marked, tied, Out(3, 9, SystemAction::kProtect, 7)}, kOutgoing, true,
         SystemAction::kProtect, 7);
  // A mark without a mask matches every packet.
  SpdEntry unmasked = Out(4, 0, SystemAction::kDiscard);
  unmasked.mark = 5;
  Expect({unmasked}, kOutgoing, true, SystemAction::kDiscard);
}

TEST_CASE("Incoming packets of a flow come from its remote end") {
  const Selector in{Family::kV4, P("10.9.0.1"), P("10.9.0.2"), 6, 80, 0xffff, 0, 0};
  const Selector out{Family::kV4, P("10.9.0.2"), P("10.9.0.1"), 6, 0, 0, 80, 0xffff};
  const std::vector<SpdEntry> spd = {Entry(0, 8, 1, SystemAction::kProtect, 3, in),
                                     Entry(1, 1, 1, SystemAction::kProtect, 4, out)};
  Expect(spd, kOutgoing, false, SystemAction::kProtect, 3);
  Expect(spd, kOutgoing, true, SystemAction::kProtect, 4);
  const std::vector<SpdEntry> swapped = {Entry(0, 8, 1, SystemAction::kProtect, 3, out),
                                         Entry(1, 1, 1, SystemAction::kProtect, 4, in)};
  Expect(swapped, kOutgoing, false, SystemAction::kBypass);
  Expect(swapped, kOutgoing, true, SystemAction::kBypass);
}

TEST_CASE("With a port not known yet the strictest that might come to decide holds") {
  Flow unbound = kOutgoing;
  unbound.local.port = 0;
  const Selector ssh{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 22, 0xffff, 0, 0};
  const SpdEntry bypass_ssh = Out(1, 1, SystemAction::kBypass, 0, ssh);
  const SpdEntry protect_all = Out(2, 5, SystemAction::kProtect, 7);
  const SpdEntry block_all = Out(3, 9, SystemAction::kDiscard);
  // A hole for one source port is no hole for whatever port the kernel will choose.
  Expect({bypass_ssh, block_all}, unbound, true, SystemAction::kDiscard);
  Expect({bypass_ssh, protect_all}, unbound, true, SystemAction::kProtect, 7);
  // What stands behind a certain match never decides.
  Expect({bypass_ssh, protect_all, block_all}, unbound, true, SystemAction::kProtect, 7);
  Flow bound = kOutgoing;
  bound.local.port = 22;
  Expect({bypass_ssh, block_all}, bound, true, SystemAction::kBypass);
  Flow incoming{Direction::kIn, kProtocolTcp, kHere, S("10.9.0.1", 0)};
  const Selector web{Family::kV4, P("0.0.0.0/0"), P("0.0.0.0/0"), 6, 0, 0, 80, 0xffff};
  Expect({Out(1, 1, SystemAction::kBypass, 0, web), block_all}, incoming, true,
         SystemAction::kDiscard);
  Flow nowhere = kOutgoing;
  nowhere.local = {};
  const SpdEntry bypass_here = Out(4, 1, SystemAction::kBypass, 0, Wide("10.9.0.2"));
  Expect({bypass_here, block_all}, nowhere, true, SystemAction::kDiscard);
  Expect({bypass_here, block_all}, kOutgoing, true, SystemAction::kBypass);
}

TEST_CASE("An entry of one flow does not name the SA of a flow whose port is not known") {
  const Address us = *Address::Parse("10.9.0.1");
  const Address peer = *Address::Parse("10.9.0.2");
  SpdEntry narrow;
  narrow.dir = 1;
  narrow.bare = false;
  narrow.protocol = SaProtocol::kEsp;
  narrow.reqid = 1;
  narrow.priority = 1;
  narrow.selector = {Family::kV4, {us, 32}, {peer, 32}, kProtocolTcp, 40'001, 0xffff, 443, 0xffff};
  CHECK(narrow.selector.OfOneFlow());
  SpdEntry wide = narrow;
  wide.reqid = 7;
  wide.priority = 2;
  wide.selector = {Family::kV4, {us, 32}, {peer, 32}};
  CHECK_FALSE(wide.selector.OfOneFlow());
  Flow flow{Direction::kOut, kProtocolTcp, {us, 0}, {peer, 443}};
  CHECK(LookUpSpd({narrow, wide}, flow, true).reqid == 7);
  CHECK(LookUpSpd({narrow}, flow, true).action == SystemAction::kProtect);
  CHECK(LookUpSpd({narrow}, flow, true).reqid == 0);
  flow.local.port = 40'001;
  CHECK(LookUpSpd({narrow, wide}, flow, true).reqid == 1);
}

}  // namespace
}  // namespace latchkey
