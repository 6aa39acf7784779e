// Who is served by an unconnected UDP socket: peers by rules for what comes in, their SAs as they
// come and go, and whose they are.

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

TEST_CASE("A socket that is bound to one of our addresses has to do with that one's SAs alone") {
  HoldBroker broker(ServerPolicy());
  const int fd = broker.Held(53, "10.9.0.1");
  const int second = broker.Held(53, "10.9.0.22");
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");  // to 10.9.0.1
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 7));
  CHECK_FALSE(broker.TakesIn(second, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.kernel.admissions.size() == 1);
  CHECK(broker.Peer(second, "10.9.0.2", 40'000).reason == Reason::kNoSa);
}

TEST_CASE("What two sockets of a port have the other keeps when one is closed") {
  HoldBroker broker(ServerPolicy());
  const int first = broker.Held();
  const int second = broker.Held();
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  for (const int closed : {first, second}) {
    CHECK(broker.Sends(second, "10.9.0.2", 40'000, 7));
    CHECK(broker.TakesIn(second, "10.9.0.2", 40'000, &bob[1]));
    broker.Pass(broker.options.reap_ms);
    broker.CloseSocket(closed);
    broker.Pass(broker.options.reap_ms);
    broker.engine->Tick();
  }
  CHECK(broker.SendsNothing(second, "10.9.0.2", 40'000));
  CHECK(broker.kernel.admissions.empty());
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
  CHECK(broker.kernel.guards.size() == guards + 2);  // to be sent to, and the proof of its tag
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
