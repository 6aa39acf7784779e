// Connected UDP: latched before the program connects, drained, moved, dissolved, broken.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using Steps = std::vector<std::string>;

TEST_CASE("A UDP connect is latched: policy, then connect and drain, before the answer") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Begin(fd, false, "10.9.0.2", 53);
  REQUIRE(answer.verdict == wire::Verdict::kLatched);
  const FakeKernel::Socket& socket = broker.SocketOf(fd);
  CHECK(socket.steps == Steps{"push", "policy", "connect", "drain", "push"});
  CHECK(socket.policy->kind == SocketPolicy::Kind::kProtect);
  CHECK(socket.policy->reqid == 7);
  CHECK((socket.facts.mark & broker.options.guard_mark) != 0);
  const Latch& latch = broker.LatchOf(answer.latch);
  CHECK(latch.flow.protocol == kProtocolUdp);
  CHECK(latch.flow.local == At("10.9.0.1", static_cast<uint16_t>(50'000 + fd)));
  CHECK(latch.flow.remote == At("10.9.0.2", 53));
  CHECK(latch.identity.peer_id == "bob");
}

TEST_CASE("A v4-mapped flow is held by a policy of its own family") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp(/*v6=*/true);
  REQUIRE(broker.Begin(fd).verdict == wire::Verdict::kLatched);
  CHECK(broker.SocketOf(fd).policy->family == Family::kV4);
}

TEST_CASE("A link-local peer is connected to on its own interface") {
  Broker broker;
  broker.Keyed(7, "bob", "fe80::2");
  const int fd = broker.kernel.AddUdp(/*v6=*/true);
  const Answer answer = broker.engine->Connect(broker.client, fd, fd, At("fe80::2", 53), false, 3);
  REQUIRE(answer.verdict == wire::Verdict::kLatched);
  CHECK(broker.SocketOf(fd).steps == Steps{"push", "policy", "connect%3", "drain", "push"});
}

TEST_CASE("Connected anew, the old latch ends and the new one is drained too") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const int fd = broker.kernel.AddUdp();
  const Answer first = broker.Begin(fd);
  broker.SocketOf(fd).steps.clear();
  const Answer second = broker.Begin(fd, false, "10.9.0.3");
  REQUIRE(second.verdict == wire::Verdict::kLatched);
  CHECK(broker.StateOf(first.latch) == State::kClosed);
  CHECK(broker.LatchOf(second.latch).identity.peer_id == "carol");
  CHECK(broker.SocketOf(fd).policy->reqid == 8);
  CHECK(broker.SocketOf(fd).steps == Steps{"push", "policy", "connect", "drain", "push"});
}

TEST_CASE("Where the new one is refused, the old one stays as it is") {
  Broker broker(MakePolicy({ProtectRule({"bob"})}));
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "mallory", "10.9.0.3");
  const int fd = broker.kernel.AddUdp();
  const Answer first = broker.Begin(fd);
  const Answer second = broker.Begin(fd, false, "10.9.0.3");
  CHECK(second.verdict == wire::Verdict::kRefused);
  CHECK(second.reason == Reason::kPeerMismatch);
  CHECK(broker.StateOf(first.latch) == State::kEstablished);
  CHECK(broker.SocketOf(fd).policy->reqid == 7);
  CHECK(broker.SocketOf(fd).facts.remote == At("10.9.0.2", 443));
}

TEST_CASE("Disconnected, it is drained behind a block, and then free") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Begin(fd);
  FakeKernel::Socket& socket = broker.SocketOf(fd);
  // Not as long as it is connected: the message may be late.
  broker.engine->Release(broker.client, fd);
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  socket.facts.remote = {};
  socket.facts.tcp_state = 7;
  socket.facts.local = At("0.0.0.0", 0);  // it was never bound
  socket.steps.clear();
  CHECK(broker.engine->Release(broker.client, fd).verdict == wire::Verdict::kBypass);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
  CHECK(socket.steps == Steps{"policy", "drain", "policy"});
  CHECK(socket.policy->kind == SocketPolicy::Kind::kClear);
  CHECK((socket.facts.mark & broker.options.guard_mark) == 0);
}

TEST_CASE("Connected to a peer that a rule bypasses, nothing of the latch is left") {
  policy::Rule bypass;
  bypass.name = "dns";
  bypass.action = policy::Action::kBypass;
  bypass.remote_port = {{53, 53}};
  Broker broker(MakePolicy({bypass, ProtectRule()}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Begin(fd);
  broker.SocketOf(fd).steps.clear();
  CHECK(broker.Begin(fd, false, "10.9.0.2", 53).verdict == wire::Verdict::kBypass);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
  // As long as it is connected to the old peer nothing that it sends may leave.
  CHECK(broker.SocketOf(fd).steps == Steps{"push", "policy", "connect", "drain", "push", "policy"});
  CHECK((broker.SocketOf(fd).facts.mark & broker.options.guard_mark) == 0);
  SECTION("where it cannot be connected there it is kept back still") {
    const Answer latched = broker.Begin(fd, false, "10.9.0.2", 443);
    REQUIRE(latched.verdict == wire::Verdict::kLatched);
    broker.kernel.unreachable = "10.9.0.3";
    CHECK(broker.Begin(fd, false, "10.9.0.3", 53).verdict == wire::Verdict::kBypass);
    CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kAllow);
    CHECK(broker.SocketOf(fd).policy->flow.remote == At("10.9.0.3", 53));
    CHECK((broker.SocketOf(fd).facts.mark & broker.options.guard_mark) != 0);
    CHECK(broker.StateOf(latched.latch) == State::kClosed);
  }
}

TEST_CASE("Going in clear, it keeps its mark until it is connected there") {
  policy::Rule optional;
  optional.name = "optional";
  optional.action = policy::Action::kProtectOrBypass;
  optional.remote_port = {{53, 53}};
  Broker broker(MakePolicy({optional, ProtectRule()}));
  broker.client.requester.grants = policy::Grants::All();
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  REQUIRE(broker.Begin(fd).verdict == wire::Verdict::kLatched);
  broker.SocketOf(fd).steps.clear();
  broker.kernel.unreachable = "10.9.0.3";
  CHECK(broker.Begin(fd, false, "10.9.0.3", 53).verdict == wire::Verdict::kLatched);
  CHECK((broker.SocketOf(fd).facts.mark & broker.options.guard_mark) != 0);
  broker.kernel.unreachable.clear();
  CHECK(broker.Begin(fd, false, "10.9.0.3", 53).verdict == wire::Verdict::kLatched);
  CHECK((broker.SocketOf(fd).facts.mark & broker.options.guard_mark) == 0);
  const Steps once{"push", "policy", "connect", "drain", "push"};
  Steps twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  CHECK(broker.SocketOf(fd).steps == twice);
}

TEST_CASE("Another peer's SA breaks it: blocked, then aborted") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Begin(fd);
  broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
  CHECK(broker.SocketOf(fd).aborted);
}

TEST_CASE("A non-blocking one waits for its SA with what it sends held back") {
  Broker broker;
  broker.keys.negotiates = true;
  const int fd = broker.kernel.AddUdp();
  const Answer waits = broker.Begin(fd, /*nonblocking=*/true, "10.9.0.2", 53);
  REQUIRE(waits.verdict == wire::Verdict::kWait);
  broker.Pass(broker.options.inline_ms);
  REQUIRE(broker.AnswerTo(waits.ticket).has_value());
  const Answer larval = *broker.AnswerTo(waits.ticket);
  REQUIRE(larval.verdict == wire::Verdict::kLarval);
  CHECK(broker.kernel.holding);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kAwaitIn);
  CHECK(broker.SocketOf(fd).steps == Steps{"push", "policy", "policy", "connect", "drain"});
  CHECK(broker.kernel.HasGuard(
      LarvalGuard(At("10.9.0.2", 53), kProtocolUdp, 0xffff'fff0, broker.options.guard_mark)));
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.StateOf(larval.latch) == State::kEstablished);
  CHECK(broker.LatchOf(larval.latch).flow.protocol == kProtocolUdp);
  CHECK(broker.SocketOf(fd).policy->reqid == 7);
  CHECK_FALSE(broker.kernel.holding);
}

TEST_CASE("One that gets no SA is refused, and says why on every call") {
  Broker broker;
  broker.keys.negotiates = true;
  const int fd = broker.kernel.AddUdp();
  const Answer waits = broker.Begin(fd, /*nonblocking=*/true);
  broker.Pass(broker.options.inline_ms);
  REQUIRE(broker.AnswerTo(waits.ticket).has_value());
  const Answer larval = *broker.AnswerTo(waits.ticket);
  broker.Negotiated("10.9.0.2", Reason::kNoChild);
  CHECK(broker.StateOf(larval.latch) == State::kBroken);
  CHECK(broker.LatchOf(larval.latch).reason == Reason::kNoChild);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
}

TEST_CASE("The close of its socket ends it") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Begin(fd);
  broker.Pass(broker.options.reap_ms);
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  broker.CloseSocket(fd);
  broker.Pass(broker.options.reap_ms);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
}

TEST_CASE("Its latch is found again after a crash of the broker") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.kernel.AddUdp();
  const Answer answer = broker.Begin(fd);
  broker.Crash();
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
}

TEST_CASE("Groups, other datagrams and sockets that serve no more are refused") {
  Broker broker;
  for (const char* group : {"224.0.0.1", "239.1.2.3", "255.255.255.255", "ff02::1", "10.9.0.255"}) {
    INFO(group);
    const int fd = broker.kernel.AddUdp(/*v6=*/true);
    const Answer answer = broker.Begin(fd, false, group);
    CHECK(answer.verdict == wire::Verdict::kRefused);
    CHECK(answer.reason == Reason::kUnsupported);
    CHECK(broker.Begin(broker.Socket(), false, group).reason == Reason::kUnsupported);
  }
  const int lite = broker.kernel.AddUdp();
  broker.SocketOf(lite).facts.datagram_udp = false;
  CHECK(broker.Begin(lite).reason == Reason::kUnsupported);
  const int down = broker.kernel.AddUdp();
  broker.SocketOf(down).facts.shut_down = true;
  CHECK(broker.Begin(down).reason == Reason::kClosed);
}

TEST_CASE("No UDP socket listens or accepts") {
  Broker broker;
  const int fd = broker.kernel.AddUdp();
  CHECK(broker.Listen(fd).reason == Reason::kUnsupported);
  CHECK(broker.Accept(fd).reason == Reason::kUnsupported);
}

}  // namespace
}  // namespace latchkey::broker
