// Requests that wait for keys: how each comes to be answered.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

std::shared_ptr<const policy::Policy> OneRule(policy::Action action = policy::Action::kProtect) {
  policy::Rule rule = ProtectRule({"bob"});
  rule.action = action;
  return MakePolicy({rule});
}

struct Waiter : Broker {
  explicit Waiter(policy::Action action = policy::Action::kProtect) : Broker(OneRule(action)) {
    keys.negotiates = true;
    keys.Name(7, "bob");
  }
};

TEST_CASE("a connect without an SA waits, and is latched when there is one with a name") {
  Waiter broker;
  const int fd = broker.Socket();
  const Answer wait = broker.Begin(fd);
  REQUIRE(wait.verdict == Verdict::kWait);
  CHECK(wait.ticket != 0);
  CHECK(wait.latch == 0);
  CHECK(broker.keys.waiting.size() == 1);
  CHECK(broker.engine->database().entries().empty());
  // One direction is no pair yet.
  const std::vector<Sa> pair = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(pair[1]);
  CHECK_FALSE(broker.AnswerTo(wait.ticket));
  broker.Hear(pair[0]);
  const std::optional<Answer> answer = broker.AnswerTo(wait.ticket);
  REQUIRE(answer);
  CHECK(answer->verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(answer->latch).identity.peer_id == "bob");
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kProtect);
  CHECK(broker.keys.waiting.empty());  // it does not wait for the key manager any more
  CHECK_FALSE(broker.engine->NextDue());
}

TEST_CASE("many connects to one peer begin one negotiation, and all are answered") {
  Waiter broker;
  std::vector<uint64_t> tickets;
  for (int i = 0; i < 10; ++i) {
    const Answer wait =
        broker.Begin(broker.Socket(), false, "10.9.0.2", static_cast<uint16_t>(440 + i % 3));
    REQUIRE(wait.verdict == Verdict::kWait);
    tickets.push_back(wait.ticket);
  }
  CHECK(broker.keys.next_ticket == 2);
  CHECK(broker.keys.waiting.at(1) == 10);
  CHECK(broker.Begin(broker.Socket(), false, "10.9.0.3").verdict == Verdict::kWait);
  CHECK(broker.keys.next_ticket == 3);
  // The SAs' events first, or the key manager's: either way.
  broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  broker.Negotiated("10.9.0.2");
  for (const uint64_t ticket : tickets) {
    REQUIRE(broker.AnswerTo(ticket));
    CHECK(broker.AnswerTo(ticket)->verdict == Verdict::kLatched);
  }
  CHECK(broker.engine->database().entries().size() == 10);
  CHECK(broker.keys.waiting.size() == 1);
}

TEST_CASE("why no SA could be had is what the program is told") {
  for (const Reason reason :
       {Reason::kAuthFailed, Reason::kNoProposal, Reason::kNoChild, Reason::kAcquireTimeout,
        Reason::kKmLost, Reason::kPeerMismatch, Reason::kAmbiguousPeer}) {
    Waiter broker;
    const int fd = broker.Socket();
    const Answer wait = broker.Begin(fd);
    broker.Negotiated("10.9.0.2", reason);
    INFO(wire::ReasonWord(reason));
    CHECK(broker.RefusalOf(wait.ticket) == reason);
    CHECK(broker.observer.last_refusal == reason);
    CHECK(broker.engine->database().entries().empty());
    CHECK(broker.keys.waiting.empty());
    CHECK_FALSE(broker.engine->NextDue());
  }
}

TEST_CASE("negotiated, and no SA as asked: the SA that is there says why") {
  Waiter broker;
  const Answer wait = broker.Begin(broker.Socket());
  SECTION("none at all") {
    broker.Negotiated("10.9.0.2");
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kNoSa);
  }
  SECTION("another peer's") {
    broker.keys.Name(7, "mallory");
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerMismatch);
  }
  SECTION("another peer's, known no sooner than the negotiation ends") {
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK_FALSE(broker.AnswerTo(wait.ticket));
    broker.keys.Name(7, "mallory");
    broker.Negotiated("10.9.0.2");
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerMismatch);
  }
  SECTION("there, but the negotiation failed with a duplicate of it") {
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.keys.Name(7, "bob");
    broker.Negotiated("10.9.0.2", Reason::kNoProposal);
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
  }
  CHECK(broker.keys.waiting.empty());
}

TEST_CASE("negotiated, and who it is is still being asked: it goes on waiting") {
  Waiter broker;
  const Answer wait = broker.Begin(broker.Socket());
  broker.keys.by_reqid[7] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  broker.Negotiated("10.9.0.2");
  REQUIRE_FALSE(broker.AnswerTo(wait.ticket));
  SECTION("bob") {
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
  }
  SECTION("nobody ever says") {
    broker.Pass(5'000);
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerUnknown);
  }
  CHECK(broker.keys.waiting.empty());
}

TEST_CASE("who waits too long is told so, at the rule's time") {
  policy::Rule rule = ProtectRule({"bob"});
  rule.acquire_timeout = std::chrono::milliseconds(700);
  Broker broker(MakePolicy({rule}));
  broker.keys.negotiates = true;
  const Answer wait = broker.Begin(broker.Socket());
  CHECK(broker.engine->NextDue() == broker.kernel.now + 700);
  broker.Pass(699);
  CHECK_FALSE(broker.AnswerTo(wait.ticket));
  broker.Pass(1);
  CHECK(broker.RefusalOf(wait.ticket) == Reason::kAcquireTimeout);
  CHECK(broker.keys.waiting.empty());
  CHECK_FALSE(broker.engine->NextDue());
  // What comes later is for the next one.
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.engine->database().entries().empty());
  CHECK(broker.Begin(broker.Socket()).verdict == Verdict::kLatched);
}

TEST_CASE("what nobody waits for any more is abandoned") {
  Waiter broker;
  const int fd = broker.Socket();
  const Answer first = broker.Begin(fd);
  const Answer second = broker.Begin(broker.Socket());
  broker.engine->Cancel(first.ticket);
  CHECK(broker.keys.waiting.at(1) == 1);
  broker.engine->Cancel(first.ticket);  // once is enough
  CHECK(broker.keys.waiting.at(1) == 1);
  broker.kernel.sockets.erase(fd);
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK_FALSE(broker.AnswerTo(first.ticket));
  CHECK(broker.AnswerTo(second.ticket)->verdict == Verdict::kLatched);
  CHECK(broker.keys.waiting.empty());
}

TEST_CASE("keys that cannot be negotiated are not waited for") {
  Broker broker(OneRule());
  const Answer answer = broker.Begin(broker.Socket());
  CHECK(answer.verdict == Verdict::kRefused);
  CHECK(answer.reason == Reason::kNoSa);
  CHECK_FALSE(broker.engine->NextDue());
}

TEST_CASE("an SA whose peer is still being asked for is waited for, without a negotiation") {
  Waiter broker;
  broker.keys.by_reqid[7] = Identified::Pending();
  const std::vector<Sa> pair = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(pair);
  const Answer wait = broker.Begin(broker.Socket());
  REQUIRE(wait.verdict == Verdict::kWait);
  CHECK(broker.keys.waiting.empty());
  SECTION("bob") {
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
  }
  SECTION("somebody else") {
    broker.keys.Name(7, "mallory");
    broker.KeysChanged();
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerMismatch);
  }
  SECTION("nobody") {
    broker.keys.by_reqid[7] = Identified::Nobody();
    broker.KeysChanged();
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerUnknown);
  }
  SECTION("whoever knew is gone") {
    broker.keys.negotiates = false;
    broker.keys.by_reqid[7] = Identified::Nobody(Reason::kKmLost);
    broker.KeysChanged();
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kKmLost);
  }
  SECTION("no answer") {
    broker.Pass(5'000);
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerUnknown);
  }
  SECTION("the SA goes: then one is negotiated") {
    broker.Gone(pair);
    CHECK_FALSE(broker.AnswerTo(wait.ticket));
    CHECK(broker.keys.waiting.size() == 1);
    broker.keys.Name(7, "bob");
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
  }
  CHECK(broker.keys.waiting.empty());
}

TEST_CASE("a pending SA beside a known one: no latch before both are known") {
  Waiter broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.keys.by_reqid[9] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(9, "10.9.0.2"));
  const Answer wait = broker.Begin(broker.Socket());
  REQUIRE(wait.verdict == Verdict::kWait);
  broker.keys.Name(9, "mallory");
  broker.KeysChanged();
  CHECK(broker.RefusalOf(wait.ticket) == Reason::kAmbiguousPeer);
}

TEST_CASE("an accept that waits is over when its listener is") {
  Waiter broker;
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.keys.by_reqid[7] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  broker.engine->Tick(/*reap_now=*/true);  // its socket is seen
  const int child = broker.Child(listener);
  const Answer wait = broker.Accept(child);
  REQUIRE(wait.verdict == Verdict::kWait);
  broker.CloseSocket(listener);
  broker.Pass(500);
  CHECK(broker.RefusalOf(wait.ticket) == Reason::kUnlatchedListener);
  CHECK(broker.SocketOf(child).policy->kind == Kind::kBlock);
}

TEST_CASE("an SA that went before it had a name counts for a listener if it carried anything") {
  Waiter broker;
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.keys.by_reqid[9] = Identified::Pending();
  const std::vector<Sa> stranger = broker.kernel.AddPair(9, "10.9.0.2");
  broker.Hear(stranger);
  const bool unused = GENERATE(true, false);
  broker.kernel.RemoveSas(9);
  for (const Sa& sa : stranger) {
    broker.engine->OnEvents({{KernelEvent::Kind::kSaDeleted, sa, unused}});
  }
  broker.Keyed(7, "bob", "10.9.0.2");
  const Answer answer = broker.Accept(broker.Child(listener));
  if (unused) {
    CHECK(answer.verdict == Verdict::kLatched);
  } else {
    CHECK(answer.reason == Reason::kAmbiguousPeer);
  }
}

TEST_CASE("an accept waits for a name, not for keys") {
  Waiter broker;
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  CHECK(broker.Accept(broker.Child(listener)).reason == Reason::kNoSa);
  broker.keys.by_reqid[7] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  const int child = broker.Child(listener, "10.9.0.2", 40'001);
  const Answer wait = broker.Accept(child);
  REQUIRE(wait.verdict == Verdict::kWait);
  CHECK(broker.engine->NextDue() == broker.kernel.now + Options{}.identify_ms);
  CHECK(broker.keys.waiting.empty());
  SECTION("bob") {
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
    CHECK(broker.SocketOf(child).policy->kind == Kind::kProtect);
    CHECK(broker.LatchOf(broker.AnswerTo(wait.ticket)->latch).flow.direction == Direction::kIn);
  }
  SECTION("somebody else") {
    broker.keys.Name(7, "mallory");
    broker.KeysChanged();
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerMismatch);
    CHECK(broker.SocketOf(child).policy->kind == Kind::kBlock);
  }
  SECTION("nobody says") {
    broker.Pass(Options{}.identify_ms - 1);
    CHECK_FALSE(broker.AnswerTo(wait.ticket));
    broker.Pass(1);
    CHECK(broker.RefusalOf(wait.ticket) == Reason::kPeerUnknown);
    CHECK(broker.SocketOf(child).policy->kind == Kind::kBlock);
  }
}

TEST_CASE("protect-or-bypass goes clear where there is nobody to protect it with") {
  for (const Reason reason : {Reason::kNoSa, Reason::kNoChild, Reason::kAcquireTimeout}) {
    Waiter broker(policy::Action::kProtectOrBypass);
    const int fd = broker.Socket();
    const Answer wait = broker.Begin(fd);
    REQUIRE(wait.verdict == Verdict::kWait);
    broker.Negotiated("10.9.0.2", reason);
    INFO(wire::ReasonWord(reason));
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
    CHECK(broker.LatchOf(broker.AnswerTo(wait.ticket)->latch).clear);
    CHECK(broker.SocketOf(fd).policy->kind == Kind::kAllow);
  }
  Waiter slow(policy::Action::kProtectOrBypass);
  const Answer wait = slow.Begin(slow.Socket());
  slow.Pass(5'000);
  REQUIRE(slow.AnswerTo(wait.ticket));
  CHECK(slow.LatchOf(slow.AnswerTo(wait.ticket)->latch).clear);
}

TEST_CASE("protect-or-bypass never goes clear because a peer is not who it should be") {
  Waiter broker(policy::Action::kProtectOrBypass);
  const int fd = broker.Socket();
  const Answer wait = broker.Begin(fd);
  REQUIRE(wait.verdict == Verdict::kWait);
  const auto refused = [&](Reason reason) {
    REQUIRE(broker.AnswerTo(wait.ticket));
    CHECK(broker.RefusalOf(wait.ticket) == reason);
    CHECK_FALSE(broker.SocketOf(fd).policy);
    CHECK(broker.engine->database().entries().empty());
  };
  SECTION("the exchange failed") {
    const Reason reason = GENERATE(Reason::kAuthFailed, Reason::kNoProposal, Reason::kKmLost,
                                   Reason::kAmbiguousPeer, Reason::kPeerMismatch);
    broker.Negotiated("10.9.0.2", reason);
    refused(reason);
  }
  SECTION("it was made with somebody else") {
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.keys.Name(7, "mallory");
    broker.Negotiated("10.9.0.2");
    refused(Reason::kPeerMismatch);
  }
  SECTION("it was made, but nobody knows with whom when the time is over") {
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Pass(5'000);
    refused(Reason::kPeerUnknown);
  }
}

TEST_CASE("what the SPD says meanwhile counts when it is decided") {
  Waiter broker;
  const Answer wait = broker.Begin(broker.Socket());
  SpdEntry discard;
  discard.dir = 1;
  discard.block = discard.bare = true;
  broker.kernel.spd = {discard};
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.RefusalOf(wait.ticket) == Reason::kPolicyDiscard);
  CHECK(broker.keys.waiting.empty());
}

}  // namespace
}  // namespace latchkey::broker
