// Unconnected UDP sockets when their broker dies, or stops, and another comes.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

constexpr int64_t kPeerMs = 300'000;

TEST_CASE("After a crash it is held anew, and its peers are served") {
  HoldBroker broker(
      MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"})}));
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t latch = broker.Hold(fd).latch;
  const std::vector<Guard> guards = broker.kernel.guards;
  const auto regions = broker.kernel.filters.at(broker.SocketOf(fd).facts.cookie);
  const auto admissions = broker.kernel.admissions;
  broker.SocketOf(fd).steps.clear();
  broker.Crash();
  REQUIRE(broker.started);
  CHECK(broker.StateOf(latch) == State::kListener);
  CHECK(broker.kernel.guards.size() == guards.size());
  CHECK(broker.kernel.filters.at(broker.SocketOf(fd).facts.cookie) == regions);
  CHECK(broker.kernel.admissions == admissions);  // the SAs bear their tags still
  CHECK(broker.SocketOf(fd).steps == std::vector<std::string>{"filter", "policy", "drain"});
  CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 7));
  CHECK(broker.SendsClear(fd, "192.0.2.1", 40'000));
  CHECK(broker.kernel.borrowed == 0);
}

TEST_CASE("What a broker before us had asked about is asked about again") {
  HoldBroker broker(ClientPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held(40'000);
  REQUIRE(broker.Peer(fd).verdict == Verdict::kLatched);
  REQUIRE(broker.Peer(fd, "10.9.0.3", 123).verdict == Verdict::kLatched);
  broker.Crash();
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 53));
  CHECK(broker.SendsNothing(fd, "10.9.0.3", 123));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 53, &bob[1]));
  CHECK(broker.Peer(fd).verdict == Verdict::kLatched);
  CHECK(broker.Sends(fd, "10.9.0.2", 53, 7));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 53, &bob[1]));
}

TEST_CASE("Another identity that came while no broker watched waits for so long") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  broker.keys.by_reqid[7].verified.identity.auth = "pubkey";  // what is written down of SAs
  broker.KeysChanged();
  const int fd = broker.Held();
  REQUIRE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  const Legacy left = broker.Left();
  broker.kernel.RemoveSas(7);
  broker.keys.Name(9, "mallory");
  const std::vector<Sa> mallory = broker.kernel.AddPair(9, "10.9.0.2");
  broker.Restart(left);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &mallory[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1));
  broker.Pass(kPeerMs + 1);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &mallory[1]));
}

TEST_CASE("A held socket that cannot be held anew moves nothing") {
  HoldBroker broker(
      MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"})}));
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t cookie = broker.SocketOf(fd).facts.cookie;
  SECTION("the kernel refuses") {
    const Legacy left = broker.Left();
    broker.kernel.filters_possible = false;
    broker.Restart(left);
    CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  }
  SECTION("its session is lost") {
    Legacy left = broker.Left();
    left.latches[0].policy = MakePolicy({}, policy::Action::kDiscard);
    broker.Restart(left);
    CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  }
  CHECK(broker.kernel.filters.at(cookie).empty());
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.kernel.guards.size() == 2);  // the standing ones
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
}

TEST_CASE("One that was closed meanwhile is gone, and nothing of it stays") {
  HoldBroker broker(ServerPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const Legacy left = broker.Left();
  broker.CloseSocket(fd);
  broker.Restart(left);
  CHECK(broker.engine->database().entries().empty());
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.kernel.guards.size() == 2);
}

TEST_CASE("One that bears the mark, and that no record speaks of, is cut off") {
  HoldBroker broker(ServerPolicy());
  const int fd = broker.Held();
  Legacy nothing;
  nothing.incomplete = true;
  nothing.guards = broker.Left().guards;
  broker.Restart(nothing);
  REQUIRE(broker.started);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  CHECK(broker.SocketOf(fd).aborted);
}

TEST_CASE("A clean stop blocks what it held, and the next broker holds it again") {
  HoldBroker broker(
      MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"})}));
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const Legacy left = broker.Left();
  broker.engine->Stop();
  CHECK(broker.kernel.guards.empty());
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  Legacy legacy;
  legacy.latches = left.latches;
  broker.Restart(legacy);
  REQUIRE(broker.started);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kClear);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  CHECK(broker.Sends(fd, "10.9.0.2", 1, 7));
}

TEST_CASE("What a clean stop cannot block by a socket's own policy the standing entries do") {
  HoldBroker broker(ServerPolicy());
  const int fd = broker.Held(53, "::");
  broker.Keyed(7, "bob", "10.9.0.2");
  const Legacy left = broker.Left();
  broker.engine->Stop();
  CHECK(broker.kernel.guards.size() == 2);
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1));
  CHECK(broker.SendsNothing(fd, "fd00::2", 1));
  Legacy legacy;
  legacy.latches = left.latches;
  broker.options.shared_guards = true;
  broker.Restart(legacy);
  REQUIRE(broker.started);
  CHECK(broker.Sends(fd, "10.9.0.2", 1, 7));
}

}  // namespace
}  // namespace latchkey::broker
