// Non-blocking connects: LARVAL latches, how they end, and what they leave behind.
#include "tools/latchkeyd/latch/engine_larval_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

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

TEST_CASE("what the kernel began for want of an SA under a killed broker's entries goes too") {
  Larval broker;
  const uint32_t ours = Options{}.guard_mark;
  const std::vector<Sa> pair = broker.kernel.AddPair(7, "10.9.0.2");
  Sa begun = pair.front();
  begun.key.spi = 0;
  begun.larval = true;
  begun.reqid = kPlaceholder;
  begun.mark = begun.mark_mask = ours;
  Sa named = begun;  // killed on the way to forget it
  named.key.spi = 0x2000;
  // Another's: of an entry without our mark, or whose mark only looks like it; and what is no SA of
  // ESP or AH at all.
  Sa unmarked = begun, masked = begun, other = begun;
  unmarked.mark = unmarked.mark_mask = 0;
  masked.mark_mask = 0xffff'ffff;
  other.key.protocol = SaProtocol::kNone;
  Sa whole = pair.front();  // has its keys, whatever its mark
  whole.key.spi = 0x3000;
  whole.mark = whole.mark_mask = ours;
  broker.kernel.sad = {begun, named, unmarked, masked, other, whole};
  // Not before the entries are gone: a SYN that comes again would have it begun anew.
  const int fd = broker.Socket();
  broker.Start(fd);
  broker.kernel.guards_at_drop = 0;
  broker.Crash();
  REQUIRE(broker.started);
  CHECK(broker.kernel.sad == std::vector<Sa>{unmarked, masked, other, whole});
  CHECK(broker.kernel.guards_at_drop == kStanding);
}

}  // namespace
}  // namespace latchkey::broker
