// Non-blocking connects: LARVAL latches, how they end, and what they leave behind.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

constexpr uint32_t kPlaceholder = 0xffff'fff0;
constexpr size_t kStanding = 2;  // the standing guards, one a family

struct Larval : Broker {
  explicit Larval(std::vector<policy::Rule> rules = {ProtectRule({"bob"})})
      : Broker(MakePolicy(std::move(rules))) {
    keys.negotiates = true;
    keys.Name(7, "bob");
  }

  // A connect that has gone LARVAL; the program is in SYN_SENT.
  uint64_t Start(int fd, uint16_t port = 443) {
    const Answer wait = Begin(fd, /*nonblocking=*/true, "10.9.0.2", port);
    REQUIRE(wait.verdict == Verdict::kWait);
    Pass(Options{}.inline_ms);
    const std::optional<Answer> answer = AnswerTo(wait.ticket);
    REQUIRE(answer);
    REQUIRE(answer->verdict == Verdict::kLarval);
    SocketFacts& facts = SocketOf(fd).facts;
    facts.tcp_state = 2;
    facts.remote = At("10.9.0.2", port);
    facts.local = At("10.9.0.1", static_cast<uint16_t>(50'000 + fd));
    return answer->latch;
  }

  Guard Held(uint16_t port = 443) const {
    return LarvalGuard(At("10.9.0.2", port), kProtocolTcp, kPlaceholder, Options{}.guard_mark);
  }

  // Nothing of any LARVAL latch is left, in the kernel, the journal or the key manager.
  void CheckClean() {
    CHECK(kernel.guards.size() == kStanding);
    CHECK(observer.journal.size() == kStanding);
    CHECK_FALSE(kernel.holding);
    CHECK(kernel.borrowed == 0);
    CHECK(keys.waiting.empty());
    CHECK_FALSE(engine->NextDue());
  }
};

TEST_CASE("a non-blocking connect is latched at once when the SA comes in time") {
  Larval broker;
  const int fd = broker.Socket();
  const Answer wait = broker.Begin(fd, /*nonblocking=*/true);
  REQUIRE(wait.verdict == Verdict::kWait);
  CHECK(broker.engine->NextDue() == broker.kernel.now + Options{}.inline_ms);
  broker.Pass(Options{}.inline_ms - 1);
  CHECK_FALSE(broker.AnswerTo(wait.ticket));
  CHECK_FALSE(broker.SocketOf(fd).policy);
  broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  REQUIRE(broker.AnswerTo(wait.ticket));
  CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
  CHECK_FALSE(broker.kernel.holding);
  broker.Pass(1);
  CHECK(broker.LatchOf(1).state == State::kEstablished);
}

TEST_CASE("else it goes on LARVAL: marked, nothing in, nothing out, its SYN held back") {
  Larval broker;
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  const FakeKernel::Socket& socket = broker.SocketOf(fd);
  CHECK((socket.facts.mark & Options{}.guard_mark) != 0);
  REQUIRE(socket.policy);
  CHECK(socket.policy->kind == Kind::kAwaitIn);  // leaves the outgoing side to the guard
  CHECK(socket.policy->reqid == kPlaceholder);
  CHECK(broker.kernel.HasGuard(broker.Held()));
  CHECK(broker.observer.journal.contains(broker.Held()));
  CHECK(broker.kernel.holding);
  CHECK(broker.keys.waiting.size() == 1);
  const Latch& latch = broker.LatchOf(id);
  CHECK(latch.state == State::kLarval);
  CHECK(latch.identity.peer_id.empty());
  CHECK(latch.flow.remote == At("10.9.0.2", 443));
  // Its deadline wakes the broker.
  CHECK(broker.engine->NextDue() == 1000 + 5'000);
}

TEST_CASE("a LARVAL latch gets its pins when the SA is there, and its SYN leaves under them") {
  Larval broker;
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  const std::vector<Sa> pair = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(pair[1]);
  CHECK(broker.LatchOf(id).state == State::kLarval);
  broker.Hear(pair[0]);
  const Latch& latch = broker.LatchOf(id);
  REQUIRE(latch.state == State::kEstablished);
  CHECK(latch.identity.peer_id == "bob");
  CHECK(latch.reqid == 7);
  CHECK(latch.rule == "all");
  CHECK(latch.flow.local == At("10.9.0.1", static_cast<uint16_t>(50'000 + fd)));
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kProtect);
  CHECK(broker.SocketOf(fd).policy->reqid == 7);
  CHECK(broker.observer.told.at({id, State::kEstablished}) == 1);
  CHECK_FALSE(broker.kernel.holding);
  CHECK(broker.keys.waiting.empty());
  // The entry that kept the SYN back lets it go under the real reqid, and is gone after a while.
  Guard real = broker.Held();
  CHECK_FALSE(broker.kernel.HasGuard(real));
  real.reqid = 7;
  CHECK(broker.kernel.HasGuard(real));
  CHECK(broker.kernel.HasGuard(FlowGuard(latch, Options{}.guard_mark)));
  broker.Pass(1'000);
  CHECK_FALSE(broker.kernel.HasGuard(real));
  CHECK(broker.kernel.HasGuard(FlowGuard(latch, Options{}.guard_mark)));
  broker.CloseSocket(fd);
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  broker.CheckClean();
}

TEST_CASE("a LARVAL latch without an SA ends: told why, blocked, aborted, nothing left") {
  Larval broker;
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  Reason reason = Reason::kNone;
  SECTION("the exchange failed") {
    reason = GENERATE(Reason::kAuthFailed, Reason::kNoProposal, Reason::kNoChild, Reason::kKmLost);
    broker.Negotiated("10.9.0.2", reason);
  }
  SECTION("no answer") {
    reason = Reason::kAcquireTimeout;
    broker.Pass(4'899);
    CHECK(broker.LatchOf(id).state == State::kLarval);
    broker.Pass(1);
  }
  SECTION("somebody else") {
    reason = Reason::kPeerMismatch;
    broker.keys.Name(7, "mallory");
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  }
  SECTION("somebody else, known late") {
    reason = Reason::kPeerMismatch;
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Negotiated("10.9.0.2");
    CHECK(broker.LatchOf(id).state == State::kLarval);
    broker.keys.Name(7, "mallory");
    broker.KeysChanged();
  }
  SECTION("nobody ever says who") {
    reason = Reason::kPeerUnknown;
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Negotiated("10.9.0.2");
    broker.Pass(5'000);
  }
  SECTION("the administrator") {
    reason = Reason::kAdmin;
    CHECK(broker.engine->AdminBreak(id) == Reason::kNone);
  }
  const Latch& latch = broker.LatchOf(id);
  CHECK(latch.state == State::kBroken);
  CHECK(latch.reason == reason);
  CHECK(broker.observer.told.at({id, State::kBroken}) == 1);
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kBlock);
  CHECK(broker.SocketOf(fd).aborted);
  broker.CheckClean();
  // And it never comes back.
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(id).state == State::kBroken);
}

TEST_CASE("the program closes its socket meanwhile") {
  Larval broker;
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  broker.CloseSocket(fd);
  SECTION("reaped first") {
    broker.kernel.now += 60'000;
    broker.engine->Tick(true);
  }
  SECTION("the SA first") {
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.engine->Tick(true);
  }
  SECTION("the deadline first") {
    broker.Pass(5'000);
    broker.CheckClean();
    broker.kernel.now += 60'000;
    broker.engine->Tick(true);
  }
  CHECK(broker.StateOf(id) == State::kClosed);
  broker.CheckClean();
  REQUIRE_FALSE(broker.kernel.larvals_dropped.empty());
  CHECK(broker.kernel.larvals_dropped.back() ==
        std::pair{*Address::Parse("10.9.0.1"), Options{}.guard_mark});
}

TEST_CASE("two LARVAL latches to one peer and port share what keeps them back") {
  Larval broker;
  const int one = broker.Socket(), two = broker.Socket();
  const uint64_t first = broker.Start(one), second = broker.Start(two);
  CHECK(broker.kernel.guards.size() == kStanding + 1);
  CHECK(broker.keys.waiting.size() == 1);
  SECTION("both get their SA") {
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.LatchOf(first).state == State::kEstablished);
    CHECK(broker.LatchOf(second).state == State::kEstablished);
  }
  SECTION("one is closed, the other gets its SA") {
    broker.CloseSocket(one);
    broker.engine->Tick(true);
    CHECK(broker.kernel.HasGuard(broker.Held()));
    CHECK(broker.kernel.holding);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.LatchOf(second).state == State::kEstablished);
  }
  SECTION("only one may have the SA that comes") {
    auto strict = std::make_shared<policy::Policy>(*broker.client.policy);
    strict->rules[0].peer.ids = {"carol"};
    broker.client.policy = strict;
    const int three = broker.Socket();
    const uint64_t third = broker.Start(three);
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.CloseSocket(three);  // out of reach while the others are served
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    CHECK(broker.LatchOf(second).state == State::kEstablished);
    CHECK(broker.LatchOf(third).state == State::kLarval);
    CHECK(broker.kernel.HasGuard(broker.Held()));  // the third's SYN goes nowhere
    broker.SocketOf(three).held = true;
    broker.KeysChanged();
    CHECK(broker.LatchOf(third).reason == Reason::kPeerMismatch);
    broker.CloseSocket(three);
  }
  SECTION("both fail") {
    broker.Negotiated("10.9.0.2", Reason::kAuthFailed);
    CHECK(broker.LatchOf(first).reason == Reason::kAuthFailed);
    CHECK(broker.LatchOf(second).reason == Reason::kAuthFailed);
  }
  SECTION("the kernel does not change the entry for the first, but for the second") {
    broker.kernel.fail_after = 3;  // mark, policy, entry
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.LatchOf(first).state == State::kEstablished);
    CHECK(broker.LatchOf(second).state == State::kEstablished);
  }
  broker.CloseSocket(one);
  broker.CloseSocket(two);
  broker.kernel.now += 60'000;
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  CHECK(broker.engine->database().entries().empty());
  broker.CheckClean();
}

TEST_CASE("LARVAL beside an established latch to the same peer and port") {
  Larval broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int old = broker.Socket();
  const Answer established = broker.Connect(old);
  REQUIRE(established.verdict == Verdict::kLatched);
  broker.Gone(pair);
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  const Guard lasting = FlowGuard(broker.LatchOf(established.latch), Options{}.guard_mark);
  CHECK(broker.kernel.HasGuard(lasting));
  CHECK(broker.kernel.HasGuard(broker.Held()));
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(id).state == State::kEstablished);
  CHECK(broker.LatchOf(established.latch).state == State::kEstablished);
  broker.Pass(1'000);
  CHECK(broker.kernel.guards.size() == kStanding + 1);
  CHECK(broker.kernel.HasGuard(lasting));
}

TEST_CASE("LARVAL while the entry that let another's SYN go is still there") {
  Larval broker;
  const int one = broker.Socket();
  const uint64_t first = broker.Start(one);
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(first).state == State::kEstablished);
  broker.Gone(pair);
  broker.kernel.now += 10;
  const int two = broker.Socket();
  const uint64_t second = broker.Start(two);  // would be refused: an entry of equal selector
  CHECK(broker.kernel.HasGuard(broker.Held()));
  broker.Pass(1'000);
  CHECK(broker.kernel.HasGuard(broker.Held()));
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(second).state == State::kEstablished);
  broker.CloseSocket(one);
  broker.CloseSocket(two);
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  broker.CheckClean();
}

TEST_CASE("LARVAL while the entry of a closed flow to the same server lingers") {
  Larval broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int old = broker.Socket();
  const Answer closed = broker.Connect(old);
  REQUIRE(closed.verdict == Verdict::kLatched);
  const Guard lingers = FlowGuard(broker.LatchOf(closed.latch), Options{}.guard_mark);
  broker.CloseSocket(old);
  broker.engine->Tick(true);
  REQUIRE(broker.kernel.HasGuard(lingers));
  broker.Gone(pair);
  const uint64_t id = broker.Start(broker.Socket());
  broker.kernel.renewed.clear();
  broker.Keyed(7, "bob", "10.9.0.2");
  REQUIRE(broker.LatchOf(id).state == State::kEstablished);
  // The kernel looks among entries of whole addresses first: that one kept the SYN back.
  CHECK(std::ranges::count(broker.kernel.renewed, lingers) == 1);
}

TEST_CASE("a reqid that an SA has is no placeholder") {
  Larval broker;
  broker.keys.Name(kPlaceholder, "carol");
  broker.Hear(broker.kernel.AddPair(kPlaceholder, "10.9.0.3"));
  const int fd = broker.Socket();
  broker.Start(fd);
  CHECK(broker.SocketOf(fd).policy->reqid == kPlaceholder - 1);
}

TEST_CASE("the kernel failing at any step of going LARVAL leaves nothing half-done") {
  for (int step = 1; step <= 4; ++step) {
    Larval broker;
    const int fd = broker.Socket();
    const Answer wait = broker.Begin(fd, /*nonblocking=*/true);
    broker.kernel.fail_after = step;
    broker.Pass(Options{}.inline_ms);
    INFO("step " << step);
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kKernelRefused);
    CHECK(broker.SocketOf(fd).policy->kind == Kind::kBlock);
    CHECK(broker.engine->database().entries().empty());
    broker.CheckClean();
  }
}

TEST_CASE("a LARVAL latch that may go clear does, and is held back by nothing") {
  policy::Rule rule = ProtectRule({"bob"});
  rule.action = policy::Action::kProtectOrBypass;
  Larval broker({rule});
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  SECTION("nobody to protect it with") {
    broker.Negotiated("10.9.0.2", Reason::kNoChild);
    REQUIRE(broker.LatchOf(id).state == State::kEstablished);
    CHECK(broker.LatchOf(id).clear);
    CHECK_FALSE(broker.LatchOf(id).suspends);
    CHECK(broker.SocketOf(fd).policy->kind == Kind::kAllow);
    CHECK((broker.SocketOf(fd).facts.mark & Options{}.guard_mark) == 0);
  }
  SECTION("the wrong peer") {
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.keys.Name(7, "mallory");
    broker.Negotiated("10.9.0.2");
    CHECK(broker.LatchOf(id).reason == Reason::kPeerMismatch);
    CHECK(broker.SocketOf(fd).policy->kind == Kind::kBlock);
  }
  broker.CheckClean();
}

TEST_CASE("a broker that stops, or is killed, leaves no LARVAL socket to send in clear") {
  Larval broker;
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  SECTION("stopped: nobody is left to give it its pins, and nothing in the SPD keeps it back") {
    const Answer wait = broker.Begin(broker.Socket(), false, "10.9.0.3");
    CHECK(wait.verdict == Verdict::kWait);
    broker.engine->Stop();
    CHECK(broker.kernel.guards.empty());
    CHECK(broker.observer.journal.empty());
    CHECK_FALSE(broker.kernel.holding);
    CHECK(broker.keys.waiting.empty());
    CHECK(broker.SocketOf(fd).policy->kind == Kind::kBlock);
    CHECK(broker.SocketOf(fd).aborted);
    broker.Crash();
  }
  SECTION("killed: its entries stay until the next broker has looked at each latch") {
    CHECK(broker.kernel.HasGuard(broker.Held()));
    broker.Crash();
  }
  REQUIRE(broker.started);
  CHECK(broker.LatchOf(id).state == State::kBroken);
  CHECK(broker.LatchOf(id).reason == Reason::kSuspectGap);
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kBlock);
  CHECK(broker.SocketOf(fd).aborted);
  CHECK(broker.kernel.guards.size() == kStanding);
  CHECK(broker.observer.journal.size() == kStanding);
}

}  // namespace
}  // namespace latchkey::broker
