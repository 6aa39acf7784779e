// Whom an unconnected UDP socket asks: peers by rules for what goes out, and their limit.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

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
  broker.keys.negotiates = true;  // nobody is asked for SAs with all of a link
  CHECK(broker.Peer(fd, "10.9.0.255", 53).reason == Reason::kUnsupported);
  CHECK(broker.Peer(fd, "10.9.0.255", 123).verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "10.9.0.255", 123));
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
  broker.client.policy = ServerPolicy();
  CHECK(broker.Peer(fd).reason == Reason::kUnsupported);
  broker.client.policy = ClientPolicy();  // the same, read twice
  CHECK(broker.Peer(fd).verdict == Verdict::kLatched);
  broker.client.requester.grants = policy::Grants::All();
  CHECK(broker.Peer(fd).reason == Reason::kUnsupported);
  // Within the session whoever the program has become.
  const int own = broker.Held(40'001);
  broker.client.requester.uid = 65'534;
  CHECK(broker.Peer(own).verdict == Verdict::kLatched);
}

TEST_CASE("One that was closed a moment ago keeps nobody else from its port") {
  HoldBroker broker(ClientPolicy());
  const int fd = broker.Held(40'000);
  broker.client.policy = ClientPolicy();
  CHECK(broker.Hold(broker.Bound(40'000)).reason == Reason::kConflictSpd);
  broker.CloseSocket(fd);
  CHECK(broker.Hold(broker.Bound(40'000)).verdict == Verdict::kLatched);
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

TEST_CASE("Protected ones make way when they are bound to nobody any more, and not before") {
  policy::Rule rule = UdpRule("ask", Direction::kOut, policy::Action::kProtect);
  rule.remote_port = {{1000, 2999}};
  HoldBroker broker(MakePolicy({rule}));
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const int fd = broker.Held(40'000);
  for (uint16_t port = 1000; port < 2024; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", port).verdict == Verdict::kLatched);
  }
  broker.Pass(3'600'000);  // their SAs are there
  CHECK(broker.Peer(fd, "10.9.0.3", 1000).reason == Reason::kLimit);
  broker.Unkeyed(bob);
  broker.Pass(299'999);  // and nobody else's flows are to be taken for theirs
  CHECK(broker.Peer(fd, "10.9.0.3", 1000).reason == Reason::kLimit);
  broker.Pass(1);
  const int warnings = broker.observer.warnings;
  CHECK(broker.Peer(fd, "10.9.0.3", 1000).verdict == Verdict::kLatched);
  CHECK(broker.Sends(fd, "10.9.0.3", 1000, 8));
  CHECK(broker.observer.warnings == warnings + 1);
  // A quarter went: so many find room without another word.
  for (uint16_t port = 1001; port < 1255; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.3", port).verdict == Verdict::kLatched);
  }
  CHECK(broker.observer.warnings == warnings + 1);
  // One that made way begins as one that was never there.
  const std::vector<Sa> again = broker.Keyed(9, "bob", "10.9.0.2");
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1000));
  CHECK(broker.Peer(fd, "10.9.0.2", 1000).verdict == Verdict::kLatched);
  CHECK(broker.Sends(fd, "10.9.0.2", 1000, 9));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1000, &again[1]));
}

TEST_CASE("Where the newcomer cannot be had, those who were to make way stay") {
  HoldBroker broker(ClientPolicy());
  const int fd = broker.Held(40'000);
  for (uint16_t port = 1000; port < 2024; ++port) {
    REQUIRE(broker.Peer(fd, "10.9.0.2", port).verdict == Verdict::kLatched);
  }
  broker.Pass(60'000);
  const int warnings = broker.observer.warnings;
  broker.kernel.fail_after = 1;
  CHECK(broker.Peer(fd, "10.9.0.2", 3000).reason == Reason::kKernelRefused);
  CHECK(broker.kernel.fail_after == 0);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 3000));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 3000));
  CHECK(broker.observer.warnings == warnings);
  // As before, both ways.
  CHECK(broker.SendsClear(fd, "10.9.0.2", 1000));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1000));
  // And once it can be had they go, both ways.
  CHECK(broker.Peer(fd, "10.9.0.2", 3000).verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "10.9.0.2", 3000));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1000));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1000));
}

}  // namespace
}  // namespace latchkey::broker
