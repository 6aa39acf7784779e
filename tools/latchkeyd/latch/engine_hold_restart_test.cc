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

TEST_CASE("After a crash the proof of a tag is where it was, known or not") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const std::vector<Guard> guards = broker.kernel.guards;
  const auto is_proof = [](const Guard& guard) { return !guard.out && guard.mark != 0; };
  REQUIRE(std::ranges::count_if(guards, is_proof) == 1);
  Legacy left = broker.Left();
  SECTION("known") {
    broker.Restart(std::move(left));
    CHECK(broker.kernel.guards == guards);
  }
  SECTION("known, and nobody needs it any more") {
    broker.kernel.RemoveSas(7);
    broker.Restart(std::move(left));
    CHECK(std::ranges::none_of(broker.kernel.guards, is_proof));
    return;
  }
  SECTION("not known") {
    std::erase_if(left.guards, is_proof);
    left.incomplete = GENERATE(false, true);
    broker.Restart(std::move(left));
    CHECK(std::ranges::count_if(broker.kernel.guards, is_proof) == 1);
  }
  SECTION("not known, nor the socket") {
    Legacy nothing;
    nothing.incomplete = true;
    nothing.guards = left.guards;
    std::erase_if(nothing.guards, is_proof);
    broker.Restart(std::move(nothing));
    CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
    CHECK(std::ranges::none_of(broker.kernel.guards, is_proof));
    return;
  }
  CHECK(broker.kernel.unproved == 0);
  CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  const uint32_t tag = broker.kernel.admissions.begin()->tag;
  CHECK_FALSE(broker.kernel.TakesIn(fd, At("10.9.0.2", 1), nullptr, tag));
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

struct BrokenPeer : HoldBroker {
  explicit BrokenPeer(std::shared_ptr<const policy::Policy> policy, uint16_t port = 53,
                      const std::string& address = "0.0.0.0")
      : HoldBroker(std::move(policy)), bob(Keyed(7, "bob", "10.9.0.2")), fd(Held(port, address)) {
    (void)Peer(fd);
    id = OfPeer()->latch.id;
    const int moves = observer.moves;
    CHECK(engine->AdminBreak(id) == Reason::kNone);
    CHECK(observer.moves == moves + 1);  // the socket's line is written anew
  }
  // The only peer's latch.
  const Entry* OfPeer() const {
    const Entry* found = nullptr;
    for (const auto& [each, entry] : engine->database().entries()) {
      if (entry.latch.listener == 0) continue;
      REQUIRE(found == nullptr);
      found = &entry;
    }
    return found;
  }
  void CheckBroken() {
    REQUIRE(OfPeer() != nullptr);
    const Latch& latch = OfPeer()->latch;
    CHECK(latch.id == id);
    CHECK(latch.state == State::kBroken);
    CHECK(latch.reason == Reason::kAdmin);
    CHECK_FALSE(TakesIn(fd, "10.9.0.2", 53, &bob[1]));
    CHECK(SendsNothing(fd, "10.9.0.2", 53));
    CHECK(Peer(fd).reason == Reason::kAdmin);
  }
  void CheckServed() {
    CHECK(OfPeer()->latch.state == State::kEstablished);
    CHECK(TakesIn(fd, "10.9.0.2", 53, &bob[1]));
    CHECK(Sends(fd, "10.9.0.2", 53, 7));
  }

  std::vector<Sa> bob;
  int fd;
  uint64_t id = 0;
};

TEST_CASE(
    "A peer that the administrator broke stays broken under the next brokers, until resumed") {
  const bool asked = GENERATE(false, true);
  BrokenPeer broker(asked ? ClientPolicy() : ServerPolicy(), asked ? 40'000 : 53);
  const Latch before = broker.OfPeer()->latch;
  for (int i = 0; i < 2; ++i) {
    broker.kernel.admitted = 0;
    broker.Crash();
    REQUIRE(broker.started);
    CHECK(broker.kernel.admitted == 0);  // not for a moment
    broker.CheckBroken();
  }
  const Latch& latch = broker.OfPeer()->latch;
  CHECK(latch.flow == before.flow);
  CHECK(latch.identity == before.identity);
  CHECK(latch.protection == before.protection);
  CHECK(latch.rule == before.rule);
  CHECK(latch.since == before.since);
  CHECK(latch.listener == broker.engine->LatchOf(broker.fd)->id);
  CHECK(broker.OfPeer()->rule == &broker.client.policy->rules[0]);
  SECTION("resumed") {
    const int moves = broker.observer.moves;
    REQUIRE(broker.engine->AdminResume(broker.id) == Reason::kNone);
    CHECK(broker.observer.moves > moves);
    broker.CheckServed();
    broker.Crash();
    broker.Peer(broker.fd);
    broker.CheckServed();
  }
  SECTION("new SAs of the same do not give it back, nor does time") {
    const std::vector<Sa> rekeyed = broker.Keyed(7, "bob", "10.9.0.2");
    broker.Gone(broker.bob);
    broker.bob = rekeyed;
    broker.Pass(2 * kPeerMs);
    broker.CheckBroken();
  }
  SECTION("without any SA it may begin anew after so long, under the next broker, too") {
    broker.Unkeyed(broker.bob);
    broker.Pass(0);
    broker.Pass(kPeerMs);
    CHECK(broker.OfPeer() == nullptr);
    broker.bob = broker.Keyed(7, "bob", "10.9.0.2");
    broker.Crash();
    broker.Peer(broker.fd);
    broker.CheckServed();
  }
}

TEST_CASE("One that is broken while its latch is broken already stays so under the next broker") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t id = broker.Hold(fd).latch + 1;
  const std::vector<Sa> mallory = broker.Keyed(9, "mallory", "10.9.0.2");
  REQUIRE(broker.LatchOf(id).reason == Reason::kConflictSa);
  SECTION("by a conflict") {}
  SECTION("since the SAs cannot be read") {
    broker.kernel.blind = true;
    broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
    REQUIRE(broker.LatchOf(id).reason == Reason::kSuspectGap);
  }
  REQUIRE(broker.engine->AdminBreak(id) == Reason::kNone);
  CHECK(broker.LatchOf(id).reason == Reason::kAdmin);
  broker.kernel.blind = false;
  broker.Unkeyed(mallory);
  broker.Crash();
  CHECK(broker.LatchOf(id).reason == Reason::kAdmin);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
}

TEST_CASE("Given back while it has no SA, it is so for the next broker, and says what it lacks") {
  BrokenPeer broker(ServerPolicy());
  broker.Unkeyed(broker.bob);
  REQUIRE(broker.engine->AdminResume(broker.id) == Reason::kNone);
  CHECK(broker.OfPeer()->latch.state == State::kBroken);
  CHECK(broker.OfPeer()->latch.reason == Reason::kNoSa);
  CHECK(broker.engine->AdminResume(broker.id) == Reason::kBadRequest);
  broker.Crash();
  CHECK(broker.OfPeer() == nullptr);
}

TEST_CASE("A clean stop keeps what the administrator broke") {
  BrokenPeer broker(ServerPolicy());
  broker.engine->Stop();
  broker.Crash();
  REQUIRE(broker.started);
  broker.CheckBroken();
}

TEST_CASE(
    "A held socket of which a later line is garbled moves nothing: a peer may be broken in it") {
  BrokenPeer broker(ServerPolicy());
  broker.Keyed(8, "carol", "10.9.0.3");
  Legacy left = broker.Left();
  left.incomplete = true;
  left.suspects = {broker.engine->LatchOf(broker.fd)->id};
  broker.Restart(std::move(left));
  REQUIRE(broker.started);
  CHECK(broker.SocketOf(broker.fd).policy->kind == SocketPolicy::Kind::kBlock);
  CHECK(broker.kernel.admissions.empty());
  CHECK(broker.LatchOf(broker.id).reason == Reason::kAdmin);
  REQUIRE(broker.engine->AdminResume(broker.id) == Reason::kNone);
  CHECK(broker.LatchOf(broker.id).reason == Reason::kSuspectGap);
  CHECK_FALSE(broker.TakesIn(broker.fd, "10.9.0.2", 53, &broker.bob[1]));
  CHECK(broker.SendsNothing(broker.fd, "10.9.0.2", 53));
  broker.CloseSocket(broker.fd);
  broker.Pass(broker.options.reap_ms);
  CHECK(broker.engine->database().entries().empty());
}

TEST_CASE("Whom the program of such a socket asks about moves as little, in clear or not") {
  const std::string address = GENERATE("0.0.0.0", "::");
  BrokenPeer broker(ClientPolicy(), 40'000, address);
  Legacy left = broker.Left();
  left.incomplete = true;
  left.latches[0].broken_peers.clear();
  left.suspects = {left.latches[0].latch.id};
  broker.Restart(std::move(left));
  REQUIRE(broker.started);
  CHECK(broker.Peer(broker.fd).reason == Reason::kSuspectGap);
  CHECK(broker.Peer(broker.fd, "10.9.0.3", 123).reason == Reason::kSuspectGap);
  CHECK_FALSE(broker.TakesIn(broker.fd, "10.9.0.2", 53, &broker.bob[1]));
  CHECK_FALSE(broker.TakesIn(broker.fd, "10.9.0.3", 123));
  CHECK(broker.SendsNothing(broker.fd, "10.9.0.2", 53));
  CHECK(broker.SendsNothing(broker.fd, "10.9.0.3", 123));
  CHECK(broker.OfPeer() == nullptr);
}

TEST_CASE("A held socket moves nothing where the latch of a broken peer cannot be taken over") {
  BrokenPeer broker(ServerPolicy());
  const int other = broker.Held(54);
  Legacy left = broker.Left();
  REQUIRE(left.latches.size() == 2);
  // As if its id were another's: that of a later socket, which is taken over first.
  left.latches[0].broken_peers.begin()->second.id = left.latches[1].latch.id;
  const uint64_t id = left.latches[1].latch.id;
  broker.Restart(std::move(left));
  REQUIRE(broker.started);
  CHECK(broker.StateOf(id) == State::kListener);
  CHECK(broker.TakesIn(other, "10.9.0.2", 1, &broker.bob[1]));
  CHECK(broker.SocketOf(broker.fd).policy->kind == SocketPolicy::Kind::kBlock);
  CHECK_FALSE(broker.TakesIn(broker.fd, "10.9.0.2", 53, &broker.bob[1]));
  CHECK(broker.SendsNothing(broker.fd, "10.9.0.2", 53));
  CHECK(broker.Peer(broker.fd).reason == Reason::kSuspectGap);
  broker.Pass(broker.options.reap_ms);
  broker.CloseSocket(broker.fd);
  broker.Pass(broker.options.reap_ms);
  CHECK(broker.StateOf(id) == State::kListener);  // which is no peer of the other
  CHECK(broker.kernel.borrowed == 0);
}

TEST_CASE("A peer that has ended, but was not looked at since, can be neither broken nor resumed") {
  const bool resumes = GENERATE(false, true);
  BrokenPeer broker(ServerPolicy());
  if (!resumes) REQUIRE(broker.engine->AdminResume(broker.id) == Reason::kNone);
  broker.Unkeyed(broker.bob);
  broker.kernel.now += kPeerMs;
  CHECK((resumes ? broker.engine->AdminResume(broker.id) : broker.engine->AdminBreak(broker.id)) ==
        Reason::kBadRequest);
  CHECK(broker.OfPeer() == nullptr);
  CHECK(broker.Left().latches[0].broken_peers.empty());
}

}  // namespace
}  // namespace latchkey::broker
