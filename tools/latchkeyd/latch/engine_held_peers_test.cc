// Whom an unconnected UDP socket has to do with: peers by rules for what comes in and for what goes
// out, their SAs as they come and go, and whose they are.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

constexpr int64_t kPeerMs = 300'000;

TEST_CASE("Whoever has SAs is taken in under them, and answered under them") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.3");
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.TakesIn(fd, "10.9.0.3", 40'000, &carol[1]));
  CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 7));
  CHECK(broker.Sends(fd, "10.9.0.3", 40'000, 8));
  // Not in clear, and nobody under another's SA.
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &carol[1]));
  broker.Unkeyed(bob);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  CHECK(broker.kernel.admissions.size() == 1);
}

TEST_CASE("Of a wildcard socket of both families, both families' peers") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> eve = broker.Keyed(9, "eve", "fd00::9");
  const int fd = broker.Held(53, "::");
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.TakesIn(fd, "fd00::9", 40'000, &eve[1]));
  CHECK_FALSE(broker.TakesIn(fd, "fd00::9", 40'000));
}

TEST_CASE("A peer whom no rule allows is none") {
  policy::Rule rule = UdpRule("serve", Direction::kIn, policy::Action::kProtect);
  rule.peer.ids = {"bob"};
  HoldBroker broker(MakePolicy({rule}));
  const std::vector<Sa> mallory = broker.Keyed(7, "mallory", "10.9.0.2");
  const int fd = broker.Held();
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &mallory[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
}

TEST_CASE("Of two identities at one address nobody is served") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> mallory = broker.Keyed(9, "mallory", "10.9.0.2");
  const int fd = broker.Held();
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &mallory[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  CHECK(broker.Refusals("ambiguous-peer") == 1);
  broker.KeysChanged();
  CHECK(broker.Refusals("ambiguous-peer") == 1);  // once
  broker.Unkeyed(mallory);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
}

TEST_CASE("Another identity's SA: conflict, and nothing of either moves") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const std::vector<Sa> mallory = broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &mallory[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  CHECK(broker.Refusals("conflict-sa") == 1);
  SECTION("it goes, and the first goes on") {
    broker.Unkeyed(mallory);
    CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
    CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 7));
  }
  SECTION("the first goes, and the other waits for so long") {
    broker.Unkeyed(bob);
    broker.Pass(kPeerMs - 1);
    CHECK(broker.Peer(fd, "10.9.0.2", 40'000).reason == Reason::kConflictSa);
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &mallory[1]));
    CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
    broker.Pass(1);
    CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &mallory[1]));
    CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 9));
  }
}

TEST_CASE("The next one waits, too, where the first has long been gone for less than that") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  broker.Pass(10 * kPeerMs);  // it is there all the time
  broker.Unkeyed(bob);
  broker.Pass(kPeerMs / 2);
  const std::vector<Sa> mallory = broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &mallory[1]));
  // The first comes back: it is the one that it was.
  broker.Unkeyed(mallory);
  const std::vector<Sa> again = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &again[1]));
  broker.Unkeyed(again);
  broker.Pass(kPeerMs);
  const std::vector<Sa> later = broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &later[1]));
}

TEST_CASE("Asked about by a rule that names no ports, a peer is one, whatever its ports") {
  HoldBroker broker(MakePolicy({UdpRule("reach", Direction::kOut, policy::Action::kProtect)}));
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  const size_t guards = broker.kernel.guards.size();
  for (uint16_t port = 1; port <= 5000; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", port).verdict == Verdict::kLatched);
  }
  CHECK(broker.kernel.guards.size() == guards + 1);
  CHECK(broker.Sends(fd, "10.9.0.2", 9999, 7));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 9999, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 9999));
}

// SAs of one flow's own, of a peer's port to our port 53.
std::vector<Sa> OwnFlow(HoldBroker& broker, uint32_t reqid, const std::string& id, uint16_t port) {
  broker.keys.Name(reqid, id);
  std::vector<Sa> pair = broker.kernel.AddPair(reqid, "10.9.0.2");
  for (Sa& sa : pair) {
    const bool out = sa.source == At("10.9.0.1", 0).address;
    sa.selector.family = Family::kV4;
    sa.selector.source = {sa.source, 32};
    sa.selector.destination = {sa.key.destination, 32};
    sa.selector.protocol = kProtocolUdp;
    sa.selector.source_port = out ? 53 : port;
    sa.selector.destination_port = out ? port : 53;
    sa.selector.source_mask = sa.selector.destination_mask = 0xffff;
    for (Sa& each : broker.kernel.sad) {
      if (each.key == sa.key) each = sa;
    }
  }
  broker.Hear(pair);
  return pair;
}

TEST_CASE("Two behind one address are told apart by SAs of their flows' own") {
  policy::Rule rule = UdpRule("serve", Direction::kIn, policy::Action::kProtect);
  rule.protection.unique = GENERATE(true, false);
  HoldBroker broker(MakePolicy({rule}));
  const std::vector<Sa> bob = OwnFlow(broker, 7, "bob", 4000);
  const int fd = broker.Held();
  const std::vector<Sa> carol = OwnFlow(broker, 8, "carol", 5000);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 4000, &bob[1]));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 5000, &carol[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000, &carol[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 5000, &bob[1]));
  CHECK(broker.Sends(fd, "10.9.0.2", 4000, 7));
  CHECK(broker.Sends(fd, "10.9.0.2", 5000, 8));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 6000));
  // One port of both is nobody's.
  const std::vector<Sa> mallory = OwnFlow(broker, 9, "mallory", 4000);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000, &mallory[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 4000));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 5000, &carol[1]));
  broker.Unkeyed(mallory);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 4000, &bob[1]));
  // Gone, a port is another's after so long, and no memory of it stays.
  broker.Unkeyed(bob);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 4000));
  broker.Pass(kPeerMs);
  const std::vector<Sa> later = OwnFlow(broker, 10, "dora", 4000);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 4000, &later[1]));
}

TEST_CASE("An SA for all of an address serves nobody who is to have one of his own") {
  policy::Rule rule = UdpRule("serve", Direction::kIn, policy::Action::kProtect);
  rule.protection.unique = true;
  HoldBroker broker(MakePolicy({rule}));
  const std::vector<Sa> wide = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000, &wide[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 4000));
}

TEST_CASE("Of sockets of one port none speaks to another than the other does") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int first = broker.Held();
  broker.Unkeyed(bob);
  const std::vector<Sa> mallory = broker.Keyed(9, "mallory", "10.9.0.2");
  const int second = broker.Held();
  const int elsewhere = broker.Held(54);
  CHECK(broker.SendsNothing(first, "10.9.0.2", 1));
  CHECK(broker.SendsNothing(second, "10.9.0.2", 1));
  CHECK_FALSE(broker.TakesIn(second, "10.9.0.2", 1, &mallory[1]));
  CHECK(broker.Sends(elsewhere, "10.9.0.2", 1, 9));
  broker.Pass(broker.options.reap_ms);
  broker.CloseSocket(first);
  broker.Pass(broker.options.reap_ms);
  broker.Pass(1000);
  CHECK(broker.Sends(second, "10.9.0.2", 1, 9));
  CHECK(broker.TakesIn(second, "10.9.0.2", 1, &mallory[1]));
}

TEST_CASE("What is another socket's latch is no way for a held one's datagrams") {
  HoldBroker broker(ClientPolicy());
  policy::Rule discard = UdpRule("not there", Direction::kOut, policy::Action::kDiscard, {}, 54);
  broker.client.policy = MakePolicy(
      {UdpRule("ask", Direction::kOut, policy::Action::kProtect, {}, 53), std::move(discard)});
  const int fd = broker.Held(40'000);
  REQUIRE(fd > 0);
  const auto strict = broker.client.policy;
  broker.client.policy = MakePolicy({ProtectRule()});
  broker.Keyed(7, "bob", "10.9.0.2");
  const int connected = broker.kernel.AddUdp();
  REQUIRE(broker.Begin(connected, false, "10.9.0.2", 54).verdict == Verdict::kLatched);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 54));
  broker.client.policy = strict;
  CHECK(broker.Peer(fd, "10.9.0.2", 54).reason == Reason::kPolicyDiscard);
}

TEST_CASE("A rekey goes on by itself: both SAs while both are there, then the new one") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> old = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const std::vector<Sa> fresh = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &old[1]));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &fresh[1]));
  broker.Gone(old);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &fresh[1]));
  CHECK(broker.kernel.admissions.size() == 1);
  CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 7));
}

TEST_CASE("Other parameters of the same identity are a conflict") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> strong = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  broker.Unkeyed(strong);
  const std::vector<Sa> other = broker.Keyed(7, "bob", "10.9.0.2", 128);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &other[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  CHECK(broker.Refusals("conflict-sa") == 1);
}

TEST_CASE("One whose name is awaited does not stop the peer, nor bring anything in") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  broker.keys.by_reqid[8] = Identified::Pending();
  const std::vector<Sa> next = broker.kernel.AddPair(8, "10.9.0.2");
  broker.Hear(next);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &next[1]));
  broker.Pass(broker.options.name_ms);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));  // nobody's: a conflict
  broker.keys.Name(8, "bob");
  broker.KeysChanged();
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &next[1]));
}

TEST_CASE("Under pin = reqid what comes under the next SA is taken in before that has a name") {
  policy::Rule rule = UdpRule("serve", Direction::kIn, policy::Action::kProtect);
  rule.protection.pin = Pin::kReqid;
  HoldBroker broker(MakePolicy({rule}));
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const auto next = [&](uint32_t reqid) {
    const std::vector<Sa> pair = broker.kernel.AddPair(reqid, "10.9.0.2");
    for (const Sa& sa : pair) broker.keys.by_spi[sa.key.spi] = Identified::Pending();
    broker.Hear(pair);
    return pair;
  };
  const std::vector<Sa> fresh = next(7);
  const std::vector<Sa> other = next(8);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &fresh[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &other[1]));
  // It was somebody else's: no more.
  for (const Sa& sa : fresh) {
    broker.keys.by_spi[sa.key.spi] =
        Identified::Known({Identity{"mallory", "me", "manual"}, true, {}});
  }
  broker.KeysChanged();
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &fresh[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
}

TEST_CASE("A client's datagram goes by the out rule, and the answer comes back by it alone") {
  HoldBroker broker(ClientPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Peer(fd);  // held, and bound, by that
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.StateOf(answer.latch) == State::kListener);
  CHECK(broker.SocketOf(fd).facts.local.port == 40'000 + fd);
  CHECK(broker.Sends(fd, "10.9.0.2", 53, 7));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 53, &bob[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 54, &bob[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 54));
  CHECK(broker.Peer(fd).latch == answer.latch);
}

TEST_CASE("What the rules leave in clear is let pass to the one that was asked about") {
  HoldBroker broker(ClientPolicy());
  const int fd = broker.Held(40'000);
  REQUIRE(broker.SendsNothing(fd, "10.9.0.2", 123));
  CHECK(broker.Peer(fd, "10.9.0.2", 123).verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "10.9.0.2", 123));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 123));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53));
  CHECK(broker.Peer(fd, "224.0.0.251", 5353).verdict == Verdict::kLatched);
  CHECK(broker.Peer(fd, "224.0.0.251", 53).reason == Reason::kUnsupported);
}

TEST_CASE("Whoever is let pass in clear against the SPD is told of, once, and seen as its entry") {
  HoldBroker broker(
      MakePolicy({UdpRule("past", Direction::kOut, policy::Action::kBypass, {}, 123),
                  UdpRule("ask", Direction::kOut, policy::Action::kProtect, {}, 53)}));
  broker.client.requester.grants = policy::Grants::All();
  const int fd = broker.Held(40'000);
  const uint64_t latch = broker.Hold(fd).latch;
  REQUIRE(broker.Peer(fd, "10.9.0.2", 123).verdict == Verdict::kLatched);
  CHECK(broker.observer.warnings == 0);  // nothing asks for more
  SpdEntry asks;
  asks.bare = false;
  asks.protocol = SaProtocol::kEsp;
  asks.dir = 1;
  asks.selector.family = Family::kV4;
  asks.selector.source = asks.selector.destination = *Prefix::Parse("0.0.0.0/0");
  broker.kernel.spd.push_back(asks);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  for (int i = 0; i < 2; ++i) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", 123).verdict == Verdict::kLatched);
    CHECK(broker.observer.warnings == 1);
    const std::string told = "warning: latch " + std::to_string(latch) +
                             " passes the SPD in clear, to 10.9.0.2:123: rule past";
    CHECK(broker.observer.log.back() == told);
  }
  const std::vector<SpdEntry> spd = *broker.kernel.DumpSpd();
  const auto its = std::ranges::find_if(spd, [](const SpdEntry& each) {
    return each.dir == 1 && each.selector.destination_port == 123;
  });
  REQUIRE(its != spd.end());
  uint64_t owner = 0;
  CHECK(broker.engine->OwnerOf(*its, owner) == wire::Owner::kLatch);
  CHECK(owner == latch);
}

TEST_CASE("A peer without SAs waits for keys, as a connect does") {
  HoldBroker broker(ClientPolicy());
  broker.keys.negotiates = true;
  const int fd = broker.Held(40'000);
  const Answer waits = broker.Peer(fd);
  REQUIRE(waits.verdict == Verdict::kWait);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
  SECTION("they come") {
    const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
    REQUIRE(broker.AnswerTo(waits.ticket));
    CHECK(broker.AnswerTo(waits.ticket)->verdict == Verdict::kLatched);
    CHECK(broker.Sends(fd, "10.9.0.2", 53, 7));
    CHECK(broker.TakesIn(fd, "10.9.0.2", 53, &bob[1]));
  }
  SECTION("there is nobody") {
    broker.Negotiated("10.9.0.2", Reason::kNoChild);
    CHECK(broker.RefusalOf(waits.ticket) == Reason::kNoChild);
    CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
  }
  SECTION("a program that does not wait is told so, and the next datagram goes") {
    const int other = broker.Held(40'001);
    const Answer moment = broker.engine->Peer(broker.client, other, other, At("10.9.0.2", 53),
                                              /*nonblocking=*/true);
    REQUIRE(moment.verdict == Verdict::kWait);
    broker.Pass(broker.options.inline_ms);
    CHECK(broker.RefusalOf(moment.ticket) == Reason::kAcquireTimeout);
    CHECK(broker.SendsNothing(other, "10.9.0.2", 53));
    broker.Keyed(7, "bob", "10.9.0.2");
    CHECK(broker.Peer(other).verdict == Verdict::kLatched);
    CHECK(broker.Sends(other, "10.9.0.2", 53, 7));
  }
  SECTION("they do not come in time") {
    broker.Pass(5000);
    CHECK(broker.RefusalOf(waits.ticket) == Reason::kAcquireTimeout);
  }
}

TEST_CASE("Of a socket that two sessions have, the one whose rules hold it asks") {
  HoldBroker broker(ClientPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held(40'000);
  broker.client.policy = ClientPolicy();
  CHECK(broker.Peer(fd).reason == Reason::kUnsupported);
}

TEST_CASE("A socket asks about so many and no more") {
  HoldBroker broker(ClientPolicy());
  const int fd = broker.Held(40'000);
  for (uint16_t port = 1000; port < 2024; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", port).verdict == Verdict::kLatched);
  }
  CHECK(broker.Peer(fd, "10.9.0.2", 3000).reason == Reason::kLimit);
  broker.Pass(59'000);
  CHECK(broker.Peer(fd, "10.9.0.2", 1000).verdict == Verdict::kLatched);
  CHECK(broker.Peer(fd, "10.9.0.2", 3000).reason == Reason::kLimit);
  // Who was not asked about for a minute makes way: the oldest, not all, and not the last.
  broker.Pass(1'000);
  const int warnings = broker.observer.warnings;
  CHECK(broker.Peer(fd, "10.9.0.2", 3000).verdict == Verdict::kLatched);
  CHECK(broker.observer.warnings == warnings + 1);
  CHECK(broker.SendsClear(fd, "10.9.0.2", 3000));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 3000));
  CHECK(broker.SendsClear(fd, "10.9.0.2", 1000));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1001));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1001));
  CHECK(broker.SendsClear(fd, "10.9.0.2", 2000));
  CHECK(broker.Peer(fd, "10.9.0.2", 1001).verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "10.9.0.2", 1001));
  // And one user's sockets together about as many as he may have latches.
  broker.options.latches_per_uid = 3;
  broker.Crash();
  CHECK(broker.Peer(fd, "10.9.0.2", 1).verdict == Verdict::kLatched);
  CHECK(broker.Peer(fd, "10.9.0.2", 2).verdict == Verdict::kLatched);
  const int other = broker.Held(40'001);
  CHECK(broker.Peer(other, "10.9.0.2", 3).verdict == Verdict::kLatched);
  CHECK(broker.Peer(other, "10.9.0.2", 4).reason == Reason::kLimit);
}

TEST_CASE("One user has no more than his share of the filter's maps; root has what there is") {
  HoldBroker broker(ClientPolicy());
  broker.options.filter_share = 3;
  broker.Restart(Legacy{});
  const uint32_t uid = GENERATE(0U, 1000U);
  broker.client.requester.uid = uid;
  for (uint16_t port = 1000; port < 1003; ++port) REQUIRE(broker.Held(port) > 0);
  const Answer another = broker.Hold(broker.Bound(1003));
  CHECK((another.reason == Reason::kLimit) == (uid != 0));
  const int fd = broker.kernel.next_fd - 2;  // the last one that is held, of a user
  for (uint16_t port = 1; port < 4; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", port).verdict == Verdict::kLatched);
  }
  CHECK((broker.Peer(fd, "10.9.0.2", 4).reason == Reason::kLimit) == (uid != 0));
}

struct Rationed : HoldBroker {
  explicit Rationed(size_t share) : HoldBroker(ServerPolicy()) {
    options.admission_share = share;
    Restart(Legacy{});
    bob = Keyed(7, "bob", "10.9.0.2");
    carol = Keyed(8, "carol", "10.9.0.3");
  }
  int HeldBy(uint32_t uid, uint16_t port) {
    client.requester.uid = uid;
    return Held(port);
  }
  void Close(int fd) {
    Pass(options.reap_ms);  // it was seen once
    CloseSocket(fd);
    Pass(options.reap_ms);
    engine->Tick();  // what is free now is given away
  }
  bool HearsBob(int fd) const { return TakesIn(fd, "10.9.0.2", 1, &bob[1]); }
  bool HearsCarol(int fd) const { return TakesIn(fd, "10.9.0.3", 1, &carol[1]); }

  std::vector<Sa> bob, carol;
};

TEST_CASE("One user's peers leave room for those of others; whoever has more room gets them then") {
  Rationed broker(3);
  const int first = broker.HeldBy(1000, 1000);
  const int second = broker.HeldBy(1000, 1001);
  CHECK(broker.HearsBob(first));
  CHECK(broker.HearsCarol(first));
  CHECK(broker.HearsBob(second));
  CHECK_FALSE(broker.HearsCarol(second));
  CHECK(broker.SendsNothing(second, "10.9.0.3", 1));
  CHECK(broker.kernel.admissions.size() == 3);
  CHECK(broker.observer.warnings == 1);
  // What the program asks about is no way around it.
  CHECK(broker.Peer(second, "10.9.0.3", 1).reason == Reason::kLimit);
  CHECK(broker.SendsNothing(second, "10.9.0.3", 1));
  // Others, and root, have their own.
  for (const uint32_t uid : {1001U, 0U}) {
    for (uint16_t port = 1; port < 3; ++port) {
      const int fd = broker.HeldBy(uid, static_cast<uint16_t>(2000 + 100 * uid + port));
      CHECK(broker.HearsBob(fd));
      CHECK(broker.HearsCarol(fd) == (port == 1 || uid == 0));
    }
    REQUIRE(broker.observer.warnings == 2);
  }
  broker.Close(first);
  CHECK(broker.HearsBob(second));
  CHECK(broker.HearsCarol(second));
  CHECK(broker.Sends(second, "10.9.0.3", 1, 8));
}

TEST_CASE("Where a user's share is used up a rekey loses none of his peers") {
  Rationed broker(2);
  const int fd = broker.HeldBy(1000, 1000);
  const std::vector<Sa> fresh = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.HearsBob(fd));
  CHECK(broker.HearsCarol(fd));
  broker.Gone(broker.bob);
  broker.bob = fresh;
  CHECK(broker.HearsBob(fd));
  CHECK(broker.HearsCarol(fd));
}

TEST_CASE("A user's share counts what is admitted, and is as it was when all of it is gone") {
  Rationed broker(2);
  for (int i = 0; i < 3; ++i) {
    const int fd = broker.HeldBy(1000, 1000);
    CHECK(broker.HearsBob(fd));
    CHECK(broker.HearsCarol(fd));
    broker.Close(fd);
    REQUIRE(broker.kernel.admissions.empty());
  }
  broker.HeldBy(1000, 1000);
  broker.Crash();
  CHECK(broker.kernel.admissions.size() == 2);
  CHECK(broker.observer.warnings == 0);
}

TEST_CASE("Where the SAs cannot be read, nothing protected moves") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  broker.kernel.blind = true;
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  broker.kernel.blind = false;
  broker.Pass(500);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
}

}  // namespace
}  // namespace latchkey::broker
