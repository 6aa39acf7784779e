// Unconnected UDP sockets: held to the rules, connected, dissolved, closed, taken over.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using Steps = std::vector<std::string>;
using wire::Verdict;

TEST_CASE("A server's socket is marked, filtered, then drained, and takes nothing in clear") {
  HoldBroker broker(ServerPolicy());
  const int fd = broker.Bound();
  const Answer answer = broker.Hold(fd);
  REQUIRE(answer.verdict == Verdict::kLatched);
  const FakeKernel::Socket& socket = broker.SocketOf(fd);
  CHECK(socket.steps == Steps{"filter", "policy", "drain"});
  CHECK(socket.policy->kind == SocketPolicy::Kind::kClear);
  CHECK((socket.facts.mark & kGuardBit) != 0);
  CHECK(broker.StateOf(answer.latch) == State::kListener);
  CHECK(broker.LatchOf(answer.latch).flow.protocol == kProtocolUdp);
  CHECK(broker.LatchOf(answer.latch).flow.local == At("0.0.0.0", 53));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  CHECK(broker.Hold(fd).latch == answer.latch);
}

TEST_CASE("Where no rule says anything of datagrams, the socket is left alone") {
  policy::Rule tcp = ProtectRule();
  tcp.protocol = kProtocolTcp;
  HoldBroker broker(MakePolicy({tcp}));
  const int fd = broker.Bound();
  CHECK(broker.Hold(fd).verdict == Verdict::kBypass);
  CHECK(broker.SocketOf(fd).steps.empty());
  CHECK(broker.SocketOf(fd).facts.mark == 0);
  CHECK(broker.kernel.filters.empty());
}

TEST_CASE("Bypassed peers come and go in clear, discarded ones not at all") {
  HoldBroker broker(
      MakePolicy({UdpRule("open", Direction::kIn, policy::Action::kBypass, {"10.9.0.3"}),
                  UdpRule("shut", Direction::kIn, policy::Action::kDiscard, {"10.9.0.4"}),
                  UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"})}));
  const int fd = broker.Held();
  CHECK(broker.TakesIn(fd, "10.9.0.3", 40'000));
  CHECK(broker.SendsClear(fd, "10.9.0.3", 40'000));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.4", 40'000));
  CHECK(broker.SendsNothing(fd, "10.9.0.4", 40'000));
  CHECK(broker.Peer(fd, "10.9.0.4", 40'000).reason == Reason::kPolicyDiscard);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 40'000));
  // By the default: the system.
  CHECK(broker.TakesIn(fd, "192.0.2.1", 40'000));
  CHECK(broker.SendsClear(fd, "192.0.2.1", 40'000));
}

TEST_CASE("What the SPD asks of the rest stays left to it") {
  HoldBroker broker(
      MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"})}));
  SpdEntry block;
  block.dir = 1;
  block.block = true;
  block.bare = false;
  block.selector.family = Family::kV4;
  block.selector.source = block.selector.destination = *Prefix::Parse("0.0.0.0/0");
  broker.kernel.spd.push_back(block);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  const int fd = broker.Held();
  CHECK(broker.SendsNothing(fd, "192.0.2.1", 40'000));
  CHECK(broker.Peer(fd, "192.0.2.1", 40'000).verdict == Verdict::kRefused);
}

TEST_CASE("What the SPD asks of the rest later is left to it from then on") {
  HoldBroker broker(
      MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"}),
                  UdpRule("some", Direction::kOut, policy::Action::kBypass, {}, 7)}));
  const int fd = broker.Held();
  REQUIRE(broker.Peer(fd, "192.0.2.1", 8).verdict == Verdict::kLatched);
  REQUIRE(broker.SendsClear(fd, "192.0.2.1", 8));
  SpdEntry asks;
  asks.bare = false;
  asks.protocol = SaProtocol::kEsp;
  asks.dir = 1;
  asks.selector.family = Family::kV4;
  asks.selector.source = asks.selector.destination = *Prefix::Parse("0.0.0.0/0");
  broker.kernel.spd.push_back(asks);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(broker.SendsNothing(fd, "192.0.2.1", 8));
  CHECK(broker.SendsNothing(fd, "198.51.100.1", 9));
  CHECK(broker.Peer(fd, "192.0.2.1", 8).verdict == Verdict::kRefused);
  broker.kernel.spd.clear();
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(broker.Peer(fd, "192.0.2.1", 8).verdict == Verdict::kLatched);
  CHECK(broker.SendsClear(fd, "192.0.2.1", 8));
}

TEST_CASE("By default = discard, only what a rule names moves") {
  HoldBroker broker(MakePolicy({UdpRule("ask", Direction::kOut, policy::Action::kProtect, {}, 53)},
                               policy::Action::kDiscard));
  const int fd = broker.Held(40'000);
  REQUIRE(fd > 0);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 7));
  CHECK(broker.Peer(fd, "10.9.0.2", 7).reason == Reason::kPolicyDiscard);
  HoldBroker nothing(MakePolicy({}, policy::Action::kDiscard));
  const int other = nothing.Bound();
  CHECK(nothing.Hold(other).reason == Reason::kPolicyDiscard);
  CHECK(nothing.SocketOf(other).policy->kind == SocketPolicy::Kind::kBlock);
}

TEST_CASE("What is not supported is refused, and nothing of it moves") {
  policy::Rule optional = UdpRule("open", Direction::kIn, policy::Action::kProtectOrBypass);
  policy::Rule tunnel = UdpRule("tunnel", Direction::kBoth, policy::Action::kProtect);
  tunnel.protection.mode = Mode::kTunnel;
  for (const policy::Rule& rule : {optional, tunnel}) {
    INFO(rule.name);
    HoldBroker broker(MakePolicy({rule}));
    const int fd = broker.Bound();
    CHECK(broker.Hold(fd).reason == Reason::kUnsupported);
    CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
    CHECK((broker.SocketOf(fd).facts.mark & kGuardBit) != 0);
  }
  HoldBroker broker(ServerPolicy());
  broker.kernel.filters_possible = false;
  const int fd = broker.Bound();
  CHECK(broker.Hold(fd).reason == Reason::kUnsupported);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  CHECK(broker.engine->database().entries().empty());
}

TEST_CASE("The kernel failing at any step of it leaves nothing behind, and nothing moving") {
  int refused = 0;
  for (int step = 1; step <= 8; ++step) {
    INFO("step " << step);
    HoldBroker broker(
        MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect, {"10.9.0.0/24"})}));
    const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
    const size_t before = broker.kernel.guards.size();
    broker.kernel.fail_after = step;
    const int fd = broker.Bound();
    const Answer answer = broker.Hold(fd);
    broker.kernel.fail_after = 0;
    CHECK(broker.SendsClear(fd, "10.9.0.2", 40'000) == false);
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000));
    if (answer.verdict != Verdict::kRefused) continue;
    ++refused;
    CHECK(broker.kernel.guards.size() == before);
    CHECK(broker.kernel.admissions.empty());
    CHECK(broker.engine->database().entries().empty());
    CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  }
  CHECK(refused >= 4);
}

TEST_CASE("Another's socket on the same port may not be held to other rules") {
  HoldBroker broker(ServerPolicy());
  REQUIRE(broker.Held() > 0);
  REQUIRE(broker.Held() > 0);  // SO_REUSEPORT, the same program
  policy::Rule open = UdpRule("open", Direction::kIn, policy::Action::kBypass);
  open.local_port = {{53, 53}};
  broker.client.policy =
      MakePolicy({open, UdpRule("ask", Direction::kOut, policy::Action::kProtect, {"10.9.0.9"})});
  broker.client.requester.uid = 1001;
  const int fd = broker.Bound();
  CHECK(broker.Hold(fd).verdict == Verdict::kBypass);  // not marked: it has nothing of ours
  broker.client.policy =
      MakePolicy({UdpRule("open", Direction::kIn, policy::Action::kBypass, {"10.9.0.0/24"}),
                  UdpRule("serve", Direction::kIn, policy::Action::kProtect)});
  const int mixed = broker.Bound();
  CHECK(broker.Hold(mixed).reason == Reason::kConflictSpd);
  CHECK(broker.SocketOf(mixed).policy->kind == SocketPolicy::Kind::kBlock);
  // That is of one family; by the other nothing comes in either.
  CHECK_FALSE(broker.TakesIn(mixed, "10.9.0.3", 1));
  CHECK_FALSE(broker.TakesIn(mixed, "fd00::3", 1));
}

TEST_CASE("Nor by another user, nor by a policy of the same name that names others") {
  HoldBroker broker(ServerPolicy());
  REQUIRE(broker.Held() > 0);
  const bool another = GENERATE(false, true);
  broker.client.policy = ServerPolicy();
  if (another) {
    broker.client.requester.uid = 1001;
  } else {
    policy::Rule rule = UdpRule("serve", Direction::kIn, policy::Action::kProtect);
    rule.peer.ids = {"mallory"};
    broker.client.policy = MakePolicy({rule});
  }
  CHECK(broker.Hold(broker.Bound()).reason == Reason::kConflictSpd);
  // Read twice, it is the same policy.
  broker.client.policy = ServerPolicy();
  broker.client.requester.uid = 1000;
  CHECK(broker.Hold(broker.Bound()).verdict == Verdict::kLatched);
}

TEST_CASE("One user's sockets are so many and no more") {
  HoldBroker broker(ServerPolicy());
  broker.options.latches_per_uid = 2;
  broker.Crash();
  REQUIRE(broker.Held(1) > 0);
  REQUIRE(broker.Held(2) > 0);
  const int fd = broker.Bound(3);
  CHECK(broker.Hold(fd).reason == Reason::kLimit);
}

TEST_CASE("Closed, it is reaped: entries, admissions and regions go") {
  HoldBroker broker(ServerPolicy());
  const size_t before = broker.kernel.guards.size();
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t latch = broker.Hold(fd).latch;
  REQUIRE(broker.TakesIn(fd, "10.9.0.2", 40'000, &pair[1]));
  broker.Pass(broker.options.reap_ms);
  REQUIRE(broker.StateOf(latch) == State::kListener);
  broker.CloseSocket(fd);
  broker.Pass(broker.options.reap_ms);
  CHECK(broker.StateOf(latch) == State::kClosed);
  CHECK(broker.kernel.guards.size() == before);
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.kernel.filters.at(broker.SocketOf(fd).facts.cookie).empty());
}

TEST_CASE("Closed while it is connected, by a rule or in clear, nothing of its filter stays") {
  policy::Rule bypass = UdpRule("open", Direction::kBoth, policy::Action::kBypass, {"10.9.0.3"});
  HoldBroker broker(
      MakePolicy({bypass, UdpRule("all", Direction::kBoth, policy::Action::kProtect)}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const std::string peer = GENERATE("10.9.0.2", "10.9.0.3");
  const int fd = broker.Held();
  REQUIRE(broker.Begin(fd, false, peer, 4000).verdict != Verdict::kRefused);
  REQUIRE(broker.TakesIn(fd, peer, 4000));
  const size_t guards = broker.kernel.guards.size();
  broker.Pass(20'000);
  CHECK(broker.TakesIn(fd, peer, 4000));
  broker.CloseSocket(fd);
  broker.Pass(20'000);
  CHECK(broker.kernel.filters.at(broker.SocketOf(fd).facts.cookie).empty());
  // Nor does an entry of its flow, which the next socket of the port would meet.
  if (peer == "10.9.0.2") CHECK(broker.kernel.guards.size() == guards - 1);
}

TEST_CASE("Connected, it is a latch of one peer, and held again when that is dissolved") {
  HoldBroker broker(ServerPolicy());
  broker.client.policy = MakePolicy({UdpRule("all", Direction::kBoth, policy::Action::kProtect)});
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const int fd = broker.Held();
  const uint64_t listener = broker.Hold(fd).latch;
  broker.SocketOf(fd).steps.clear();
  const Answer answer = broker.Begin(fd, false, "10.9.0.2", 4000);
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.StateOf(listener) == State::kClosed);
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  CHECK(broker.SocketOf(fd).steps == Steps{"push", "policy", "connect", "drain", "push", "filter"});
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.TakesIn(fd, "10.9.0.2", 4000));  // its own policy lets in what is the peer's alone
  SocketFacts& facts = broker.SocketOf(fd).facts;
  facts.remote = {};
  facts.tcp_state = 7;
  facts.local = At("0.0.0.0", 53);
  const Answer released = broker.engine->Release(broker.client, fd);
  REQUIRE(released.verdict == Verdict::kLatched);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
  CHECK(broker.StateOf(released.latch) == State::kListener);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 4000, &pair[1]));
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kClear);
}

TEST_CASE("Dissolved, it is held by rules for what comes in, or where it was held before") {
  policy::Rule bypass = UdpRule("open", Direction::kBoth, policy::Action::kBypass, {"10.9.0.3"});
  const bool incoming = GENERATE(false, true);
  const bool before = GENERATE(false, true);
  const std::string peer = GENERATE("10.9.0.2", "10.9.0.3");
  CAPTURE(incoming, before, peer);
  const Direction direction = incoming ? Direction::kBoth : Direction::kOut;
  HoldBroker broker(MakePolicy({bypass, UdpRule("all", direction, policy::Action::kProtect)}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Bound();
  if (before) REQUIRE(broker.Hold(fd).verdict == Verdict::kLatched);
  REQUIRE(broker.Begin(fd, false, peer, 4000).verdict != Verdict::kRefused);
  SocketFacts& facts = broker.SocketOf(fd).facts;
  facts.remote = {};
  facts.tcp_state = 7;
  facts.local = At("0.0.0.0", 53);
  // In clear, nothing is left that tells that it was.
  const bool held = incoming || (before && peer == "10.9.0.2");
  CHECK((broker.engine->Release(broker.client, fd).verdict == Verdict::kLatched) == held);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1) == !held);
  CHECK(((facts.mark & kGuardBit) != 0) == held);
}

TEST_CASE("Connected from one peer to another, it was held all the same") {
  HoldBroker broker(MakePolicy({UdpRule("all", Direction::kOut, policy::Action::kProtect)}));
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const int fd = broker.Held();
  REQUIRE(broker.Begin(fd, false, "10.9.0.2", 4000).verdict == Verdict::kLatched);
  REQUIRE(broker.Begin(fd, false, "10.9.0.3", 4000).verdict == Verdict::kLatched);
  SocketFacts& facts = broker.SocketOf(fd).facts;
  facts.remote = {};
  facts.tcp_state = 7;
  facts.local = At("0.0.0.0", 53);
  CHECK(broker.engine->Release(broker.client, fd).verdict == Verdict::kLatched);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000));
}

TEST_CASE("A connect that is refused leaves it held; one that is bypassed opens the filter") {
  policy::Rule bypass = UdpRule("open", Direction::kBoth, policy::Action::kBypass, {"10.9.0.3"});
  HoldBroker broker(
      MakePolicy({bypass, UdpRule("all", Direction::kBoth, policy::Action::kProtect)}));
  const int fd = broker.Held();
  CHECK(broker.Begin(fd, false, "10.9.0.2", 4000).reason == Reason::kNoSa);
  CHECK(broker.Hold(fd).verdict == Verdict::kLatched);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 4000));
  CHECK(broker.Begin(fd, false, "10.9.0.3", 4000).verdict == Verdict::kBypass);
  CHECK(broker.engine->database().entries().empty());
  CHECK((broker.SocketOf(fd).facts.mark & kGuardBit) == 0);
  CHECK(broker.TakesIn(fd, "10.9.0.3", 4000));
}

TEST_CASE("A filter that cannot be opened as it goes LARVAL leaves no entry behind") {
  HoldBroker broker(MakePolicy({UdpRule("all", Direction::kBoth, policy::Action::kProtect)}));
  broker.keys.negotiates = true;
  const int fd = broker.Held();
  const Answer waits = broker.Begin(fd, /*nonblocking=*/true, "10.9.0.2", 4000);
  REQUIRE(waits.verdict == Verdict::kWait);
  broker.kernel.filters_possible = false;
  broker.Pass(broker.options.inline_ms);
  CHECK(broker.RefusalOf(waits.ticket) == Reason::kUnsupported);
  CHECK_FALSE(broker.kernel.HasGuard(
      LarvalGuard(At("10.9.0.2", 4000), kProtocolUdp, 0xffff'fff0, broker.options.guard_mark)));
  CHECK_FALSE(broker.kernel.holding);
}

}  // namespace
}  // namespace latchkey::broker
