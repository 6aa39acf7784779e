// What the system's policy makes of requests: implicit latches, exceptions in clear, optional
// protection, AH.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

SpdEntry Spd(uint8_t dir, uint32_t reqid, bool block = false) {
  SpdEntry entry;
  entry.dir = dir;
  entry.priority = 5;
  entry.index = 100 + dir;
  entry.block = block;
  entry.bare = block;
  if (!block) {
    entry.protocol = SaProtocol::kEsp;
    entry.mode = Mode::kTransport;
    entry.reqid = reqid;
  }
  return entry;
}

void UseSpd(Broker& broker, std::vector<SpdEntry> spd) {
  broker.kernel.spd = std::move(spd);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
}

policy::Rule Do(policy::Action action) {
  policy::Rule rule = ProtectRule({"bob"});
  rule.action = action;
  return rule;
}

TEST_CASE("what the SPD asks is latched without a policy, and kept when it is flushed") {
  Broker broker(MakePolicy({}));
  broker.Keyed(7, "bob", "10.9.0.2");
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  REQUIRE(answer.verdict == Verdict::kLatched);
  const Latch& latch = broker.engine->database().Find(answer.latch)->latch;
  CHECK(latch.implicit);
  CHECK_FALSE(latch.clear);
  CHECK(latch.rule.empty());
  CHECK(latch.identity.peer_id == "bob");
  CHECK(broker.kernel.sockets.at(fd).policy->reqid == 7);
  UseSpd(broker, {});
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kProtect);
  // A new one is as the SPD is now.
  CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kBypass);
  // An impostor's SA breaks it like any other.
  broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
}

TEST_CASE("an implicit latch needs an SA with a known peer") {
  Broker broker(MakePolicy({}));
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kNoSa);
  broker.kernel.AddPair(7, "10.9.0.2");
  for (const Sa& sa : broker.kernel.sad) {
    broker.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  }
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kPeerUnknown);
}

TEST_CASE("a child that only the system protects needs no latched listener") {
  Broker broker(MakePolicy({}));
  broker.Keyed(7, "bob", "10.9.0.2");
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  const int listener = broker.Listener();
  CHECK(broker.Listen(listener).verdict == Verdict::kBypass);
  const int child = broker.Child(listener);
  const Answer answer = broker.Accept(child);
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.engine->database().Find(answer.latch)->latch.implicit);
  CHECK(broker.kernel.sockets.at(child).policy->kind == SocketPolicy::Kind::kProtect);
  // Two identities of late: who filled the queue cannot be told.
  broker.Unkeyed(broker.Keyed(8, "carol", "10.9.0.3"));
  broker.Keyed(11, "dave", "10.9.0.3");
  CHECK(broker.Accept(broker.Child(listener, "10.9.0.3", 40'001)).reason == Reason::kAmbiguousPeer);
}

TEST_CASE("our own entries are no policy of the system's") {
  Broker broker(MakePolicy({Do(policy::Action::kBypass)}));
  const size_t before = broker.kernel.guards.size();
  CHECK(before > 0);
  UseSpd(broker, {});
  CHECK(broker.engine->system().spd.empty());
  CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kBypass);
}

TEST_CASE("in clear against the system: only with the grant, loud, and never changing") {
  Broker broker(MakePolicy({Do(policy::Action::kBypass)}));
  broker.Keyed(7, "bob", "10.9.0.2");
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  const int refused = broker.Socket();
  CHECK(broker.Connect(refused).reason == Reason::kUnprivilegedBypass);
  broker.client.requester.grants.Add(policy::Grant::kBypass);
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  REQUIRE(answer.verdict == Verdict::kLatched);
  const Latch& latch = broker.engine->database().Find(answer.latch)->latch;
  CHECK(latch.clear);
  CHECK(latch.protection.protocol == SaProtocol::kNone);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kAllow);
  CHECK((broker.kernel.sockets.at(fd).facts.mark & Options{}.guard_mark) == 0);
  // Neither SAs nor the SPD change it any more.
  broker.Keyed(9, "mallory", "10.9.0.2");
  UseSpd(broker, {Spd(1, 0, /*block=*/true)});
  broker.kernel.now += 60'000;
  broker.engine->Tick();
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kAllow);
  // The socket connects anew, and to where the system asks nothing: the exception is over.
  UseSpd(broker, {});
  CHECK(broker.Connect(fd, "10.9.0.3").verdict == Verdict::kBypass);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kClear);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
}

TEST_CASE("a failure while going clear blocks the socket") {
  for (const int step : {1, 2}) {
    Broker broker(MakePolicy({Do(policy::Action::kBypass)}));
    UseSpd(broker, {Spd(1, 7)});
    broker.client.requester.grants = policy::Grants::All();
    const int fd = broker.Socket();
    broker.kernel.fail_after = step;
    CHECK(broker.Connect(fd).reason == Reason::kKernelRefused);
    CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kBlock);
    CHECK(broker.engine->database().entries().empty());
  }
}

TEST_CASE("optional protection: an SA or clear, decided once") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  const int early = broker.Socket();
  const Answer clear = broker.Connect(early);
  REQUIRE(clear.verdict == Verdict::kLatched);
  CHECK(broker.engine->database().Find(clear.latch)->latch.clear);
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const Answer latched = broker.Connect(broker.Socket());
  REQUIRE(latched.verdict == Verdict::kLatched);
  CHECK_FALSE(broker.engine->database().Find(latched.latch)->latch.clear);
  CHECK(broker.kernel.sockets.at(early).policy->kind == SocketPolicy::Kind::kAllow);
  CHECK(broker.StateOf(clear.latch) == State::kEstablished);
  // Somebody else's SA is no reason to go in clear.
  broker.Unkeyed(pair);
  broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kPeerMismatch);
}

const Latch& LatchOf(Broker& broker, const Answer& answer) {
  return broker.engine->database().Find(answer.latch)->latch;
}

bool HasInGuard(const Broker& broker, const char* remote) {
  return std::ranges::any_of(broker.kernel.guards, [&](const Guard& guard) {
    return !guard.out && guard.action == Guard::Action::kEsp &&
           guard.selector.source == Prefix::Parse(remote).value();
  });
}

TEST_CASE("in clear against the system, where the peer connects: only with the grant") {
  Broker broker(MakePolicy({Do(policy::Action::kBypass)}));
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  const int closed = broker.Listener("10.9.0.1", 81);
  CHECK(broker.Listen(closed).verdict == Verdict::kBypass);
  CHECK(broker.Accept(broker.Child(closed)).reason == Reason::kUnprivilegedBypass);
  broker.client.requester.grants.Add(policy::Grant::kBypass);
  const int listener = broker.Listener("10.9.0.1", 80);
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  for (const bool out : {false, true}) {
    CHECK(std::ranges::count_if(broker.kernel.guards, [out](const Guard& guard) {
            return guard.out == out && guard.action == Guard::Action::kAllow;
          }) == 1);
  }
  const int child = broker.Child(listener);
  const Answer answer = broker.Accept(child);
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(LatchOf(broker, answer).clear);
  CHECK(broker.kernel.sockets.at(child).policy->kind == SocketPolicy::Kind::kAllow);
  // What the system discards takes another grant.
  UseSpd(broker, {Spd(1, 0, /*block=*/true), Spd(0, 0, /*block=*/true)});
  CHECK(broker.Listen(broker.Listener("10.9.0.1", 82)).verdict == Verdict::kBypass);
  broker.client.requester.grants.Add(policy::Grant::kOverrideDiscard);
  CHECK(broker.Listen(broker.Listener("10.9.0.1", 83)).verdict == Verdict::kLatched);
}

TEST_CASE("who leaves it to the system lets nobody in against it, whatever the grants") {
  Broker broker(MakePolicy({}));
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  broker.client.requester.grants = policy::Grants::All();
  CHECK(broker.Listen(broker.Listener()).verdict == Verdict::kBypass);
  CHECK(std::ranges::none_of(broker.kernel.guards, [](const Guard& guard) {
    return guard.action == Guard::Action::kAllow;
  }));
}

TEST_CASE("optional peers come in clear where they have no SA, else under it") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  // Nothing stands in the way of clear peers, in or out; what needs an SA comes before that.
  CHECK(std::ranges::any_of(broker.kernel.guards, [](const Guard& guard) {
    return guard.out && guard.action == Guard::Action::kAllow && guard.priority == 1;
  }));
  CHECK_FALSE(HasInGuard(broker, "10.9.0.2"));
  const int first = broker.Child(listener);
  const Answer clear = broker.Accept(first);
  REQUIRE(clear.verdict == Verdict::kLatched);
  CHECK(LatchOf(broker, clear).clear);
  CHECK(broker.kernel.sockets.at(first).policy->kind == SocketPolicy::Kind::kAllow);
  CHECK((broker.kernel.sockets.at(first).facts.mark & Options{}.guard_mark) == 0);
  // One more waits in clear; then an SA comes. It stays what it was when it began.
  const int early = broker.Child(listener, "10.9.0.2", 40'001);
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(HasInGuard(broker, "10.9.0.2"));
  CHECK_FALSE(HasInGuard(broker, "10.9.0.3"));
  const int late = broker.Child(listener, "10.9.0.2", 40'002);
  const Answer began_clear = broker.Accept(early);
  REQUIRE(began_clear.verdict == Verdict::kLatched);
  CHECK(LatchOf(broker, began_clear).clear);
  const Answer latched = broker.Accept(late);
  REQUIRE(latched.verdict == Verdict::kLatched);
  CHECK_FALSE(LatchOf(broker, latched).clear);
  CHECK(broker.kernel.sockets.at(late).policy->kind == SocketPolicy::Kind::kProtect);
  CHECK(LatchOf(broker, clear).clear);
  CHECK(broker.StateOf(clear.latch) == State::kEstablished);
  // Others are as free as before, and so is this one when its SAs are gone.
  const Answer other = broker.Accept(broker.Child(listener, "10.9.0.3", 40'003));
  CHECK(LatchOf(broker, other).clear);
  broker.Unkeyed(pair);
  CHECK_FALSE(HasInGuard(broker, "10.9.0.2"));
  const Answer again = broker.Accept(broker.Child(listener, "10.9.0.2", 40'004));
  CHECK(LatchOf(broker, again).clear);
}

TEST_CASE("an SA that does not fit is no reason to take an optional peer in clear") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(HasInGuard(broker, "10.9.0.2"));
  const auto answered = [&broker](Guard::Action how) {
    return std::ranges::any_of(broker.kernel.guards, [how](const Guard& guard) {
      return guard.out && guard.action == how && guard.priority == 0 &&
             guard.selector.destination == Prefix::Parse("10.9.0.2").value();
    });
  };
  CHECK(answered(Guard::Action::kBlock));
  const int child = broker.Child(listener);
  CHECK(broker.Accept(child).reason == Reason::kPeerMismatch);
  CHECK(broker.kernel.sockets.at(child).policy->kind == SocketPolicy::Kind::kBlock);
}

TEST_CASE("what may have come in clear while the SPD was flushed is not taken for protected") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.kernel.guards.clear();
  const int child = broker.Child(listener);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(HasInGuard(broker, "10.9.0.2"));
  CHECK(LatchOf(broker, broker.Accept(child)).clear);
}

TEST_CASE("a guard that cannot be put up leaves an optional peer with an SA outside") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.kernel.fail_after = 1;
  broker.Keyed(7, "bob", "10.9.0.2");
  if (!HasInGuard(broker, "10.9.0.2")) {
    CHECK(broker.Accept(broker.Child(listener)).reason == Reason::kSuspectGap);
  }
}

TEST_CASE("optional protection does not take a peer in clear where the system protects") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  CHECK(std::ranges::none_of(broker.kernel.guards, [](const Guard& guard) {
    return guard.action == Guard::Action::kAllow;
  }));
  CHECK(broker.Accept(broker.Child(listener)).reason == Reason::kNoSa);
}

TEST_CASE("optional protection does not go in clear where the system protects") {
  Broker broker(MakePolicy({Do(policy::Action::kProtectOrBypass)}));
  UseSpd(broker, {Spd(1, 7), Spd(0, 7)});
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kNoSa);
  broker.client.requester.grants.Add(policy::Grant::kBypass);
  CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kLatched);
}

TEST_CASE("a rule for AH is met by AH alone") {
  policy::Rule rule = Do(policy::Action::kProtect);
  rule.protection.protocol = SaProtocol::kAh;
  Broker broker(MakePolicy({rule}));
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kWeakProtection);
  for (Sa& sa : broker.kernel.sad) {
    sa.key.protocol = SaProtocol::kAh;
    sa.protection = {SaProtocol::kAh, Mode::kTransport, "", "hmac-sha2-256", 0, true, false};
  }
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(fd).policy->protocol == SaProtocol::kAh);
  CHECK(std::ranges::any_of(broker.kernel.guards, [](const Guard& guard) {
    return guard.out && guard.action == Guard::Action::kAh && guard.reqid == 7;
  }));
}

TEST_CASE("whose an SPD entry is") {
  Broker broker(MakePolicy({Do(policy::Action::kProtect)}));
  broker.Keyed(7, "bob", "10.9.0.2");
  UseSpd(broker, {Spd(0, 7)});
  const Answer answer = broker.Connect(broker.Socket());
  REQUIRE(answer.verdict == Verdict::kLatched);
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  int owners[3] = {0, 0, 0};
  for (const SpdEntry& entry : broker.engine->spd()) {
    uint64_t latch = 0;
    const wire::Owner owner = broker.engine->OwnerOf(entry, latch);
    ++owners[static_cast<int>(owner)];
    CHECK((owner == wire::Owner::kLatch) == (latch == answer.latch));
  }
  CHECK(owners[0] == 1);
  CHECK(owners[1] == 2);
  CHECK(owners[2] == 1);
}

}  // namespace
}  // namespace latchkey::broker
