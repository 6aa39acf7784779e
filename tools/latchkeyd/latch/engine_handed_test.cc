// Listeners that listened before they were latched: socket activation.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

policy::Rule Incoming(const std::string& from, policy::Action action) {
  policy::Rule rule;
  rule.name = "some";
  rule.direction = Direction::kIn;
  rule.remote = {*Prefix::Parse(from)};
  rule.action = action;
  return rule;
}

// A socket that listens already.
int Handed(Broker& broker, const std::string& address = "::", uint16_t port = 80) {
  const int fd = broker.Listener(address, port);
  broker.SocketOf(fd).facts.tcp_state = 10;
  return fd;
}

TEST_CASE("a socket that listened before is latched, and who queued before is refused") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(17, "bob", "fd00::2");
  const int fd = Handed(broker);
  const int before = broker.Child(fd, "10.9.0.2", 1);
  const int before_v6 = broker.Child(fd, "fd00::2", 1);
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kRequireIn);
  CHECK((broker.SocketOf(fd).facts.mark & 0x80000000) != 0);
  for (const bool restarted : {false, true}) {
    INFO("another broker: " << restarted);
    for (const int child : {before, before_v6}) {
      CHECK(broker.Accept(child).reason == Reason::kUnlatchedListener);
      CHECK(broker.SocketOf(child).policy->kind == Kind::kBlock);
    }
    const uint16_t port = restarted ? 3 : 2;
    CHECK(broker.Accept(broker.Child(fd, "10.9.0.2", port)).verdict == Verdict::kLatched);
    CHECK(broker.Accept(broker.Child(fd, "fd00::2", port)).verdict == Verdict::kLatched);
    broker.Crash();
  }
  // Another backlog is nothing new.
  CHECK(broker.Listen(fd).verdict == Verdict::kLatched);
}

TEST_CASE("its children bear the mark only when all on the way has met its policy") {
  Broker broker;
  const int fd = Handed(broker);
  broker.kernel.on_arrivals = [&] {
    CHECK(broker.SocketOf(fd).policy->kind == Kind::kRequireIn);
    CHECK(broker.SocketOf(fd).facts.mark == 0);
  };
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.kernel.arrivals == 1);
  // To one that did not listen nothing can have come.
  REQUIRE(broker.Listen(broker.Listener("::", 81)).verdict == Verdict::kLatched);
  CHECK(broker.kernel.arrivals == 1);
}

TEST_CASE("the kernel failing while it is latched leaves no guard behind, and no child's mark") {
  // A guard for each family, the policy, what is on its way, the mark.
  for (int step = 1; step <= 5; ++step) {
    Broker broker(MakePolicy({Incoming("10.9.0.3", policy::Action::kDiscard),
                              Incoming("10.9.0.4", policy::Action::kProtectOrBypass)},
                             policy::Action::kDiscard));
    broker.Keyed(7, "bob", "10.9.0.4");
    const size_t guards = broker.kernel.guards.size();
    const int fd = Handed(broker);
    const int before = broker.Child(fd, "10.9.0.4");
    broker.kernel.fail_after = step;
    INFO("step " << step);
    CHECK(broker.Listen(fd).verdict == Verdict::kRefused);
    CHECK(broker.kernel.guards.size() == guards);
    CHECK(broker.engine->database().entries().empty());
    REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
    CHECK(broker.Accept(before).reason == Reason::kUnlatchedListener);
  }
}

TEST_CASE("of what queued before, rules that let it come in clear still do") {
  Broker broker(
      MakePolicy({Incoming("10.9.0.3", policy::Action::kBypass),
                  Incoming("10.9.0.4", policy::Action::kProtectOrBypass), ProtectRule()}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = Handed(broker);
  const int monitor = broker.Child(fd, "10.9.0.3");
  const int optional = broker.Child(fd, "10.9.0.4", 1);
  const int keyed = broker.Child(fd, "10.9.0.4", 2);
  const int bob = broker.Child(fd, "10.9.0.2");
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kClear);
  CHECK(broker.Accept(monitor).verdict == Verdict::kBypass);
  const Answer clear = broker.Accept(optional);
  REQUIRE(clear.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(clear.latch).clear);
  CHECK(broker.Accept(bob).reason == Reason::kUnlatchedListener);
  // With an SA there it would be protected.
  broker.Keyed(8, "carol", "10.9.0.4");
  CHECK(broker.Accept(keyed).reason == Reason::kUnlatchedListener);
  CHECK(broker.Accept(broker.Child(fd, "10.9.0.4", 3)).verdict == Verdict::kLatched);
}

TEST_CASE("what the SPD itself asks for, it has seen to before") {
  Broker broker(MakePolicy({Incoming("10.9.0.4", policy::Action::kProtect)}));
  SpdEntry entry;
  entry.protocol = SaProtocol::kEsp;
  entry.mode = Mode::kTransport;
  entry.reqid = 7;
  entry.bare = false;
  for (const uint8_t dir : {0, 1}) {
    entry.dir = dir;
    broker.kernel.spd.push_back(entry);
  }
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = Handed(broker, "0.0.0.0");
  const int before = broker.Child(fd);
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  const Answer taken = broker.Accept(before);
  REQUIRE(taken.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(taken.latch).identity.peer_id == "bob");
}

TEST_CASE("one that was left alone stays so") {
  Broker broker(MakePolicy({Incoming("0.0.0.0/0", policy::Action::kBypass)}));
  const int fd = Handed(broker, "0.0.0.0");
  const int before = broker.Child(fd);
  CHECK(broker.Listen(fd).verdict == Verdict::kBypass);
  CHECK(broker.kernel.arrivals == 0);
  CHECK(broker.SocketOf(fd).facts.mark == 0);
  CHECK(broker.Accept(before).verdict == Verdict::kBypass);
}

TEST_CASE("one that bears the mark of a latch that nobody knows: what is queued is refused") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = Handed(broker, "0.0.0.0");
  broker.SocketOf(fd).facts.mark = 0x80000000;
  const int before = broker.Child(fd, "10.9.0.2", 1);
  SECTION("as far as the kernel says what that is") {
    REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
    CHECK(broker.Accept(before).reason == Reason::kSuspectGap);
    CHECK(broker.Accept(broker.Child(fd, "10.9.0.2", 2)).verdict == Verdict::kLatched);
  }
  SECTION("or else all of them") {
    broker.kernel.no_list = true;
    broker.kernel.shares_port = false;
    REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
    CHECK(broker.Accept(before).reason == Reason::kSuspectGap);
    CHECK(broker.Accept(broker.Child(fd, "10.9.0.2", 2)).reason == Reason::kSuspectGap);
  }
}

TEST_CASE("a child of an unlatched listener is not taken for one of a latched one beside it") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  REQUIRE(broker.Listen(broker.Listener("::", 80)).verdict == Verdict::kLatched);
  const int unlatched = Handed(broker, "10.9.0.1");
  CHECK(broker.Accept(broker.Child(unlatched)).reason == Reason::kUnlatchedListener);
}

TEST_CASE("a listener that another session latched serves whom its rules asked for an SA") {
  Broker broker(
      MakePolicy({Incoming("10.9.0.3", policy::Action::kBypass),
                  Incoming("10.9.0.4", policy::Action::kProtectOrBypass), ProtectRule()}));
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const int fd = broker.Listener();
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  const int began = broker.Child(fd, "10.9.0.4", 1);
  broker.client.session = 2;
  broker.client.policy = MakePolicy({ProtectRule()});
  CHECK(broker.Accept(broker.Child(fd, "10.9.0.4", 3)).reason == Reason::kUnlatchedListener);
  broker.Keyed(9, "dave", "10.9.0.4");
  CHECK(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.Accept(broker.Child(fd, "10.9.0.2")).verdict == Verdict::kLatched);
  // It may have sent in clear, for all that the listener took in.
  CHECK(broker.Accept(broker.Child(fd, "10.9.0.3")).reason == Reason::kUnlatchedListener);
  CHECK(broker.Accept(began).reason == Reason::kUnlatchedListener);
  CHECK(broker.Accept(broker.Child(fd, "10.9.0.4", 2)).verdict == Verdict::kLatched);
}

}  // namespace
}  // namespace latchkey::broker
