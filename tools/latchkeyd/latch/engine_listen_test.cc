#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

int OutEsp(const FakeKernel& kernel, uint32_t reqid) {
  int count = 0;
  for (const Guard& guard : kernel.guards) {
    count += guard.out && guard.action == Guard::Action::kEsp && guard.reqid == reqid ? 1 : 0;
  }
  return count;
}

// What lets `remote` (nothing: everybody) come in clear.
policy::Rule Monitor(std::vector<Prefix> remote = {}) {
  policy::Rule rule;
  rule.name = "monitor";
  rule.direction = Direction::kIn;
  rule.remote = std::move(remote);
  rule.action = policy::Action::kBypass;
  return rule;
}

TEST_CASE("a listener demands ESP, carries the mark and may answer only under allowed SAs") {
  Broker broker(MakePolicy({ProtectRule({"bob"})}));
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "mallory", "10.9.0.3");
  const int fd = broker.Listener();
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == Kind::kRequireIn);
  CHECK((broker.kernel.sockets.at(fd).facts.mark & 0x80000000) != 0);
  CHECK(OutEsp(broker.kernel, 7) == 1);
  CHECK(OutEsp(broker.kernel, 8) == 0);
  // Listening again (another backlog) is the same latch.
  CHECK(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.engine->database().entries().size() == 1);
}

TEST_CASE("SAs that come and go while it listens") {
  Broker broker;
  const int fd = broker.Listener("::", 80);
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(17, "bob", "fd00::2");
  CHECK(OutEsp(broker.kernel, 7) == 1);
  CHECK(OutEsp(broker.kernel, 17) == 1);
  broker.Keyed(9, "mallory", "10.9.0.2");  // two identities for one address: neither is answered
  CHECK(OutEsp(broker.kernel, 7) == 0);
  CHECK(OutEsp(broker.kernel, 9) == 0);
  CHECK(OutEsp(broker.kernel, 17) == 1);
}

TEST_CASE("a child is pinned to its own peer before the program gets it") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const int bob = broker.Child(listener, "10.9.0.2"), carol = broker.Child(listener, "10.9.0.3");
  const Answer first = broker.Accept(bob), second = broker.Accept(carol);
  REQUIRE(first.verdict == Verdict::kLatched);
  REQUIRE(second.verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(bob).policy->reqid == 7);
  CHECK(broker.kernel.sockets.at(carol).policy->reqid == 8);
  CHECK(broker.engine->database().Find(first.latch)->latch.identity.peer_id == "bob");
  CHECK(broker.engine->database().Find(second.latch)->latch.identity.peer_id == "carol");
}

TEST_CASE("a v4 child of a v6 listener is pinned in its own family") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener("::", 80);
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const int child = broker.Child(listener, "10.9.0.2");
  REQUIRE(broker.Accept(child).verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(child).policy->family == Family::kV4);
}

TEST_CASE("children that are refused are blocked, whatever the reason") {
  Broker broker(MakePolicy({ProtectRule({"bob"})}));
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  std::string from = "10.9.0.2";
  Reason reason = Reason::kNone;
  SECTION("an address without SAs") {
    from = "10.9.0.3";
    reason = Reason::kNoSa;
  }
  SECTION("an allowed address with an SA of another's as well") {
    broker.Keyed(9, "mallory", "10.9.0.2");
    reason = Reason::kAmbiguousPeer;
  }
  SECTION("an SA of another's that came and went before accept") {
    broker.Unkeyed(broker.Keyed(9, "mallory", "10.9.0.2"));
    reason = Reason::kAmbiguousPeer;
  }
  SECTION("a peer that is not allowed") {
    broker.Keyed(9, "mallory", "10.9.0.3");
    from = "10.9.0.3";
    reason = Reason::kPeerMismatch;
  }
  SECTION("the same host") {
    from = "127.0.0.1";
    reason = Reason::kLocalPeer;
  }
  const int child = broker.Child(listener, from);
  const Answer answer = broker.Accept(child);
  CHECK(answer.verdict == Verdict::kRefused);
  CHECK(wire::ReasonWord(answer.reason) == std::string(wire::ReasonWord(reason)));
  CHECK(broker.kernel.sockets.at(child).policy->kind == Kind::kBlock);
  CHECK(broker.engine->database().entries().size() == 1);
}

TEST_CASE("a child of a listener that nobody latched is refused") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int child = broker.kernel.AddSocket(At("10.9.0.1", 80), At("10.9.0.2", 40'000), false, 1);
  CHECK(broker.Accept(child).reason == Reason::kUnlatchedListener);
  CHECK(broker.kernel.sockets.at(child).policy->kind == Kind::kBlock);
}

TEST_CASE("a bypassed peer of a mixed listener gets a clean socket") {
  Broker broker(MakePolicy({Monitor({*Prefix::Parse("10.9.0.3")}), ProtectRule()}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(listener).policy->kind == Kind::kClear);
  const int child = broker.Child(listener, "10.9.0.3");
  CHECK(broker.Accept(child).verdict == Verdict::kBypass);
  CHECK(broker.kernel.sockets.at(child).policy->kind == Kind::kClear);
  CHECK((broker.kernel.sockets.at(child).facts.mark & 0x80000000) == 0);
  CHECK(broker.Accept(broker.Child(listener, "10.9.0.2")).verdict == Verdict::kLatched);
}

TEST_CASE("several listeners share a place when policies make the same of it") {
  Broker broker;
  REQUIRE(broker.Listen(broker.Listener("::", 80)).verdict == Verdict::kLatched);
  SECTION("another's policy of the same text") {
    broker.client.policy = MakePolicy({ProtectRule()});
  }
  SECTION("one that asks for other peers") {
    broker.client.policy = MakePolicy({ProtectRule({"bob"})});
  }
  SECTION("after another broker took the first over") { broker.Crash(); }
  SECTION("when the SPD has changed") {
    SpdEntry allow;
    allow.selector.family = Family::kV4;
    broker.kernel.spd.push_back(allow);
    broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  }
  CHECK(broker.Listen(broker.Listener("::", 80)).verdict == Verdict::kLatched);
}

TEST_CASE("listeners that share a place are latched alike, or the later one is refused") {
  const auto protects = MakePolicy({ProtectRule()});
  const auto bypasses = MakePolicy({Monitor()});
  const auto mixed = MakePolicy({Monitor({*Prefix::Parse("10.9.0.3")}), ProtectRule()});
  auto first = protects;
  auto second = protects;
  Reason reason = Reason::kNone;
  SECTION("one that everybody reaches beside a latched one") {
    second = bypasses;
    reason = Reason::kUnlatchedListener;
  }
  SECTION("a latched one beside one that everybody reaches") {
    first = bypasses;
    reason = Reason::kUnlatchedListener;
  }
  SECTION("one that lets others in clear in") {
    second = mixed;
    reason = Reason::kConflictSpd;
  }
  SECTION("one that lets nobody in clear in, beside one that does") {
    first = mixed;
    reason = Reason::kConflictSpd;
  }
  Broker broker(first);
  const auto listen = [&](const std::shared_ptr<const policy::Policy>& policy, int fd) {
    broker.client.policy = policy;
    return broker.Listen(fd);
  };
  const int earlier = broker.Listener();
  REQUIRE(listen(first, earlier).verdict != Verdict::kRefused);
  const size_t guards = broker.kernel.guards.size();
  const int later = broker.Listener();
  CHECK(listen(second, later).reason == reason);
  CHECK(broker.SocketOf(later).facts.mark == 0);
  CHECK(broker.kernel.guards.size() == guards);
  // Elsewhere it is nobody's concern, nor what the first says by another backlog.
  CHECK(listen(second, broker.Listener("0.0.0.0", 81)).verdict != Verdict::kRefused);
  CHECK(listen(second, broker.Listener("10.9.0.1", 80)).verdict != Verdict::kRefused);
  CHECK(listen(first, earlier).verdict != Verdict::kRefused);
  // A server that takes another's place is alone there, whether that was seen to close or not.
  broker.CloseSocket(earlier);
  CHECK(listen(second, later).verdict != Verdict::kRefused);
}

TEST_CASE("where it cannot be seen who listens there, nobody is latched beside him") {
  Broker broker;
  broker.kernel.no_list = true;
  CHECK(broker.Listen(broker.Listener()).reason == Reason::kKernelRefused);
  // Where nobody can listen beside him nobody is looked for.
  broker.kernel.shares_port = false;
  CHECK(broker.Listen(broker.Listener("0.0.0.0", 81)).verdict == Verdict::kLatched);
}

TEST_CASE("an unbound socket is bound before it is guarded") {
  Broker broker;
  const int fd = broker.Socket();
  REQUIRE(broker.Listen(fd).verdict == Verdict::kLatched);
  CHECK(broker.engine->database().After(0)->latch.flow.local.port == 40'000 + fd);
}

TEST_CASE("the kernel failing at any step of listen leaves no guard behind") {
  for (int step = 1; step <= 6; ++step) {
    Broker broker;
    broker.Keyed(7, "bob", "10.9.0.2");
    const size_t before = broker.kernel.guards.size();
    broker.kernel.fail_after = step;
    const Answer answer = broker.Listen(broker.Listener("::", 80));
    INFO("step " << step);
    if (answer.verdict == Verdict::kRefused) {
      CHECK(broker.kernel.guards.size() == before);
      CHECK(broker.engine->database().entries().empty());
    }
    CHECK((step <= 3) == (answer.verdict == Verdict::kRefused));
  }
}

TEST_CASE("closing the listener takes its guards away, and its children live on") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const size_t before = broker.kernel.guards.size();
  const int listener = broker.Listener("::", 80);
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const Answer child = broker.Accept(broker.Child(listener));
  broker.engine->Tick(true);
  broker.kernel.sockets.at(listener).live = broker.kernel.sockets.at(listener).held = false;
  broker.engine->Tick(true);
  CHECK(broker.kernel.guards.size() == before + 1);  // the child's own
  CHECK(broker.StateOf(child.latch) == State::kEstablished);
}

TEST_CASE("guards that a flush took away come back") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  REQUIRE(broker.Listen(broker.Listener("::", 80)).verdict == Verdict::kLatched);
  const size_t before = broker.kernel.guards.size();
  broker.kernel.guards.clear();
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(broker.kernel.guards.size() == before);
}

TEST_CASE("after a restart what was queued at a listener is refused, what comes later is served") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener("::", 80);
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  std::vector<Entry> journal;
  for (const auto& [id, entry] : broker.engine->database().entries()) journal.push_back(entry);
  std::vector<Guard> guards = broker.kernel.guards;
  broker.kernel.sockets.at(listener).queued = 1;
  broker.Restart(guards, journal);
  REQUIRE(broker.started);
  CHECK(broker.kernel.guards.size() == guards.size());
  CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 1)).reason == Reason::kSuspectGap);
  CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 2)).verdict == Verdict::kLatched);
}

}  // namespace
}  // namespace latchkey::broker
