// Datagrams without a connection where the rules say one thing of what comes in and another of what
// goes out: nobody knows who began, so what lets some in lets nothing out that is to be protected.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

policy::Rule LetIn(Direction direction) {
  return UdpRule("pass", direction, policy::Action::kBypass);
}

TEST_CASE("A rule that lets datagrams in does not let out what another protects") {
  for (const Direction direction : {Direction::kBoth, Direction::kIn}) {
    HoldBroker broker(MakePolicy(
        {UdpRule("ask", Direction::kOut, policy::Action::kProtect, {}, 53), LetIn(direction)}));
    const int fd = broker.Bound(40'000);
    CHECK(broker.Peer(fd).reason == Reason::kNoSa);
    CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53));
    const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
    CHECK(broker.Peer(fd).verdict == Verdict::kLatched);
    CHECK(broker.Sends(fd, "10.9.0.2", 53, 7));
    CHECK(broker.TakesIn(fd, "10.9.0.2", 53, &bob[1]));
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53));
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.3", 53));
    // Others are heard as before, and answered once the broker was asked.
    CHECK(broker.TakesIn(fd, "10.9.0.2", 54));
    CHECK(broker.TakesIn(fd, "10.9.0.3", 123));
    CHECK(broker.SendsNothing(fd, "10.9.0.3", 123));
    CHECK(broker.Peer(fd, "10.9.0.3", 123).verdict == Verdict::kLatched);
    CHECK(broker.SendsClear(fd, "10.9.0.3", 123));
    CHECK(broker.SendsNothing(fd, "10.9.0.3", 53));
    CHECK(broker.TakesIn(fd, "10.9.0.3", 123));
  }
}

TEST_CASE("Nor one that a rule discards") {
  HoldBroker broker(
      MakePolicy({UdpRule("not", Direction::kOut, policy::Action::kDiscard, {"10.9.0.0/24"}),
                  LetIn(Direction::kBoth)}));
  const int fd = broker.Bound(40'000);
  CHECK(broker.Peer(fd).reason == Reason::kPolicyDiscard);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53));
  CHECK(broker.TakesIn(fd, "10.8.0.2", 53));
  CHECK(broker.SendsClear(fd, "10.8.0.2", 53));
}

TEST_CASE("An exception of one end in clear is heard and written to, of a port that is protected") {
  HoldBroker broker(
      MakePolicy({UdpRule("but", Direction::kOut, policy::Action::kBypass, {"10.9.0.3"}, 53),
                  UdpRule("ask", Direction::kOut, policy::Action::kProtect, {}, 53),
                  LetIn(Direction::kBoth)}));
  const int fd = broker.Bound(40'000);
  CHECK(broker.Peer(fd).reason == Reason::kNoSa);
  CHECK(broker.Peer(fd, "10.9.0.3").verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "10.9.0.3", 53));
  CHECK(broker.TakesIn(fd, "10.9.0.3", 53));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.4", 53));
}

TEST_CASE("A server by rule answers as it was asked, wherever it may not go by itself") {
  policy::Rule server = LetIn(Direction::kIn);
  server.local_port = {{53, 53}};
  HoldBroker broker(
      MakePolicy({UdpRule("ask", Direction::kOut, policy::Action::kProtect), server}));
  const int fd = broker.Bound(53);
  CHECK(broker.Peer(fd, "10.9.0.2", 40'000).verdict == Verdict::kBypass);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000));
  const int other = broker.Bound(54);
  CHECK(broker.Peer(other, "10.9.0.2", 40'000).reason == Reason::kNoSa);
  CHECK_FALSE(broker.TakesIn(other, "10.9.0.2", 40'000));
}

TEST_CASE("The system's rules of either direction hold where an application lets pass") {
  for (const Direction direction : {Direction::kOut, Direction::kIn}) {
    HoldBroker broker(MakePolicy({LetIn(Direction::kBoth)}));
    policy::SystemPolicy system;
    system.rules = {UdpRule("all", direction, policy::Action::kProtect, {"10.9.0.2"})};
    broker.options.system = std::make_shared<const policy::SystemPolicy>(system);
    broker.Restart(Legacy{});
    const int fd = broker.Bound(40'000);
    CHECK(broker.Peer(fd).reason == Reason::kUnprivilegedBypass);
    CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53));
    CHECK(broker.Peer(fd, "10.9.0.3").verdict == Verdict::kLatched);
    CHECK(broker.SendsClear(fd, "10.9.0.3", 53));
  }
}

}  // namespace
}  // namespace latchkey::broker
