// Whom a listener leaves without an answer, and that it is on record.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

struct Listening : Broker {
  int listener = -1;

  Listening() : Broker(MakePolicy({ProtectRule({"bob", "carol"})})) {
    listener = Listener();
    REQUIRE(Listen(listener).verdict == Verdict::kLatched);
    observer.log.clear();
  }
  // SAs with the peer's address, where we are `me`.
  std::vector<Sa> As(const std::string& me, uint32_t reqid = 7) {
    keys.by_reqid[reqid] = Identified::Known({Identity{"bob", me, "manual"}, true, {}});
    std::vector<Sa> made = kernel.AddPair(reqid, "10.9.0.2");
    Hear(made);
    return made;
  }
  bool Answers(const std::string& remote = "10.9.0.2") const {
    return std::ranges::any_of(kernel.guards, [&](const Guard& guard) {
      return guard.out && Requires(guard.action) &&
             guard.selector.destination.Contains(*Address::Parse(remote));
    });
  }
  std::vector<std::string> Refused() const {
    std::vector<std::string> lines;
    for (const std::string& line : observer.log) {
      if (line.starts_with("refused: ")) lines.push_back(line);
    }
    return lines;
  }
};

TEST_CASE("two peers at one address: neither is answered, and both are named once") {
  Listening broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.Refused().empty());
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.2");
  CHECK_FALSE(broker.Answers());
  REQUIRE(broker.Refused().size() == 1);
  CHECK(broker.Refused()[0].starts_with("refused: ambiguous-peer"));
  CHECK(broker.Refused()[0].find("\"bob\" and \"carol\"") != std::string::npos);
  SECTION("a rekey of one, and others' SAs, are nothing new") {
    broker.keys.by_reqid[8] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
    broker.keys.Name(8, "carol");
    broker.KeysChanged();
    broker.Keyed(9, "carol", "10.9.0.3");
    CHECK(broker.Refused().size() == 1);
  }
  SECTION("a third one is") {
    broker.Keyed(9, "mallory", "10.9.0.2");
    CHECK(broker.Refused().size() == 2);
  }
  SECTION("another listener says so too") {
    REQUIRE(broker.Listen(broker.Listener("10.9.0.1", 81)).verdict == Verdict::kLatched);
    CHECK(broker.Refused().size() == 2);
  }
  SECTION("one that is alone with its address is answered, and nothing is said") {
    Listening other;
    other.Keyed(7, "bob", "10.9.0.2");
    other.Keyed(8, "carol", "10.9.0.3");
    CHECK(other.Answers("10.9.0.2"));
    CHECK(other.Answers("10.9.0.3"));
    CHECK(other.Refused().empty());
  }
}

TEST_CASE("who is not known yet is not on record") {
  Listening broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.keys.by_reqid[8] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
  CHECK(broker.Refused().empty());
  broker.keys.Name(8, "bob");
  broker.KeysChanged();
  CHECK(broker.Refused().empty());
  CHECK(broker.Answers());
}

TEST_CASE("we are somebody else to a peer from now on: who comes then is served") {
  Listening broker;
  const std::vector<Sa> before = broker.As("old");
  const Answer first = broker.Accept(broker.Child(broker.listener));
  REQUIRE(first.verdict == Verdict::kLatched);
  const int queued = broker.Child(broker.listener, "10.9.0.2", 40'001);
  const int elsewhere = broker.Child(broker.listener, "10.9.0.3", 40'002);
  broker.Pass(10);
  SECTION("the old SAs go first") {
    broker.Gone(before);
    broker.As("new", 17);
  }
  SECTION("the old SAs go last") {
    broker.As("new", 17);
    CHECK_FALSE(broker.Answers());
    // Which of both what comes now comes under is not known.
    CHECK(broker.Accept(broker.Child(broker.listener, "10.9.0.2", 40'003)).reason ==
          Reason::kAmbiguousPeer);
    broker.Gone(before);
  }
  SECTION("the old SAs go one by one, the outgoing one last") {
    broker.Gone(before[1]);
    broker.Gone(before[0]);
    broker.As("new", 17);
  }
  SECTION("the old SAs go one by one, the outgoing one first") {
    broker.Gone(before[0]);
    broker.Gone(before[1]);
    broker.As("new", 17);
  }
  CHECK(broker.Answers());
  CHECK(broker.StateOf(first.latch) == State::kBroken);
  CHECK(broker.Accept(queued).reason == Reason::kAmbiguousPeer);
  const Answer later = broker.Accept(broker.Child(broker.listener, "10.9.0.2", 40'004));
  REQUIRE(later.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(later.latch).identity.local_id == "new");
  broker.Keyed(9, "carol", "10.9.0.3");
  CHECK(broker.Accept(elsewhere).verdict == Verdict::kLatched);
}

TEST_CASE("SAs that go and come again as they were leave what is queued alone") {
  Listening broker;
  const std::vector<Sa> before = broker.As("me");
  const int queued = broker.Child(broker.listener);
  broker.Pass(10);
  broker.Gone(before);
  broker.As("me", 17);
  CHECK(broker.Answers());
  CHECK(broker.Accept(queued).verdict == Verdict::kLatched);
  // But not when it turns out that there were two.
  const std::vector<Sa> again = broker.As("you", 27);
  const int late = broker.Child(broker.listener, "10.9.0.2", 40'001);
  CHECK(broker.Accept(late).reason == Reason::kAmbiguousPeer);
}

TEST_CASE("another peer, or another proof, is no other name of ours") {
  Listening broker;
  const std::vector<Sa> before = broker.As("me");
  broker.Pass(10);
  broker.Gone(before);
  broker.Pass(10);
  SECTION("another peer") { broker.keys.Name(17, "carol"); }
  SECTION("another proof") {
    broker.keys.by_reqid[17] = Identified::Known({Identity{"bob", "you", "psk"}, true, {}});
  }
  SECTION("nobody") {}
  broker.Hear(broker.kernel.AddPair(17, "10.9.0.2"));
  broker.Pass(500);
  CHECK_FALSE(broker.Answers());
  CHECK(broker.Accept(broker.Child(broker.listener)).reason == Reason::kAmbiguousPeer);
}

TEST_CASE("a listener that was closed a moment ago is not taken for its successor") {
  Listening broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.2");
  const bool closed = GENERATE(false, true);
  if (closed) broker.CloseSocket(broker.listener);
  broker.Pass(10);
  broker.Gone(carol);
  broker.Pass(10);
  const int successor = broker.Listener();
  REQUIRE(broker.Listen(successor).verdict == Verdict::kLatched);
  broker.Pass(10);
  const Answer answer = broker.Accept(broker.Child(successor));
  if (closed) {
    CHECK(answer.verdict == Verdict::kLatched);
  } else {
    // Its children may have queued at either.
    CHECK(answer.reason == Reason::kAmbiguousPeer);
  }
}

TEST_CASE("a listener found closed while one decides who waits: each is decided once") {
  Listening broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int other = broker.Listener();
  REQUIRE(broker.Listen(other).verdict == Verdict::kLatched);
  broker.keys.by_reqid[8] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
  std::vector<uint64_t> tickets;
  for (uint16_t port = 1; port <= 3; ++port) {
    const Answer answer = broker.Accept(broker.Child(other, "10.9.0.2", port));
    REQUIRE(answer.verdict == Verdict::kWait);
    tickets.push_back(answer.ticket);
  }
  broker.CloseSocket(broker.listener);
  broker.keys.Name(8, "carol");
  broker.KeysChanged();
  broker.Pass(10);
  for (const uint64_t ticket : tickets) CHECK(broker.RefusalOf(ticket) == Reason::kAmbiguousPeer);
}

TEST_CASE("where the queue cannot be read nobody is served") {
  Listening broker;
  const std::vector<Sa> before = broker.As("old");
  broker.kernel.no_list = true;
  broker.Gone(before);
  broker.As("new", 17);
  CHECK_FALSE(broker.Answers());
  CHECK(broker.Accept(broker.Child(broker.listener)).verdict == Verdict::kRefused);
}

}  // namespace
}  // namespace latchkey::broker
