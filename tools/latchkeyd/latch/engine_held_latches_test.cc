// The latches of an unconnected UDP socket's peers: one for each, whose it is and by what it is
// protected, BROKEN with the reason, and gone with the socket.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

constexpr int64_t kPeerMs = 300'000;

struct LatchBroker : HoldBroker {
  using HoldBroker::HoldBroker;

  // The latches of peers of a held socket, by id.
  std::vector<const Entry*> Peers() const {
    std::vector<const Entry*> peers;
    for (const auto& [id, entry] : engine->database().entries()) {
      if (entry.latch.listener != 0) peers.push_back(&entry);
    }
    return peers;
  }
  const Entry& Only() const {
    const std::vector<const Entry*> peers = Peers();
    REQUIRE(peers.size() == 1);
    return *peers.front();
  }
};

TEST_CASE("Each peer has a latch of its own that says whose it is and how it is protected") {
  LatchBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  CHECK(broker.Peers().size() == 1);
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.3");
  const std::vector<const Entry*> peers = broker.Peers();
  REQUIRE(peers.size() == 2);
  const Latch& first = peers[0]->latch;
  const Latch& second = peers[1]->latch;
  CHECK(first.id != second.id);
  CHECK(first.state == State::kEstablished);
  CHECK(first.identity.peer_id == "bob");
  CHECK(second.identity.peer_id == "carol");
  CHECK(first.protection == bob[0].protection);
  CHECK(first.flow.local == At("10.9.0.1", 53));
  CHECK(first.flow.remote == At("10.9.0.2", 0));
  CHECK(first.flow.protocol == kProtocolUdp);
  CHECK(first.reqid == 7);
  CHECK(first.spi_out == bob[0].key.spi);
  CHECK(first.spi_in == bob[1].key.spi);
  CHECK(first.rule == "serve");
  CHECK(first.suspends);
  CHECK(first.since != 0);
  CHECK(first.listener == broker.engine->LatchOf(fd)->id);
  // They are no latches of the user's own making, and are not looked for in the kernel's tables.
  CHECK(broker.engine->database().CountOfUid(first.uid) == 1);
  broker.Pass(20'000);
  CHECK(broker.Peers().size() == 2);
}

TEST_CASE("Whom the program asked about has a latch with the port") {
  LatchBroker broker(ClientPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held(40'000);
  CHECK(broker.Peers().empty());
  REQUIRE(broker.Peer(fd).verdict == Verdict::kLatched);
  const Latch latch = broker.Only().latch;
  CHECK(latch.flow.remote == At("10.9.0.2", 53));
  CHECK(latch.flow.direction == Direction::kOut);
  CHECK(latch.rule == "ask");
  REQUIRE(broker.Peer(fd).verdict == Verdict::kLatched);
  CHECK(broker.Only().latch.id == latch.id);
  // In clear there is no latch.
  REQUIRE(broker.Peer(fd, "10.9.0.2", 54).verdict == Verdict::kLatched);
  CHECK(broker.Peers().size() == 1);
}

TEST_CASE("Another identity's SA breaks it; it recovers when that is gone") {
  LatchBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t id = broker.Only().latch.id;
  const std::vector<Sa> mallory = broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(broker.Only().latch.state == State::kBroken);
  CHECK(broker.Only().latch.reason == Reason::kConflictSa);
  CHECK(broker.Only().latch.identity.peer_id == "bob");
  CHECK(broker.engine->LatchOf(fd)->state == State::kListener);
  SECTION("it goes on") {
    broker.Unkeyed(mallory);
    CHECK(broker.Only().latch.id == id);
    CHECK(broker.Only().latch.state == State::kEstablished);
    CHECK(broker.Only().latch.reason == Reason::kNone);
  }
  SECTION("the next one has another latch") {
    broker.Unkeyed(bob);
    broker.Pass(kPeerMs);
    CHECK(broker.Only().latch.id != id);
    CHECK(broker.Only().latch.identity.peer_id == "mallory");
    CHECK(broker.Only().latch.state == State::kEstablished);
    CHECK(broker.observer.told[{id, State::kClosed}] == 1);
  }
}

TEST_CASE("Other protection breaks it, for the reason that is told") {
  LatchBroker broker(ServerPolicy());
  const std::vector<Sa> strong = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Held();
  broker.Unkeyed(strong);
  broker.Keyed(7, "bob", "10.9.0.2", 128);
  CHECK(broker.Only().latch.state == State::kBroken);
  CHECK(broker.Only().latch.reason == Reason::kConflictSa);
}

TEST_CASE("Without SAs it stalls, then breaks; new ones of the same make it whole") {
  LatchBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Held();
  const uint64_t id = broker.Only().latch.id;
  broker.Unkeyed(bob);
  CHECK(broker.Only().latch.state == State::kEstablished);
  CHECK(broker.observer.log.back() == "latch " + std::to_string(id) + " stalls");
  broker.Pass(broker.options.sa_grace_ms - 1);
  CHECK(broker.Only().latch.state == State::kEstablished);
  broker.Pass(1);
  CHECK(broker.Only().latch.state == State::kBroken);
  CHECK(broker.Only().latch.reason == Reason::kNoSa);
  const std::vector<Sa> again = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.Only().latch.id == id);
  CHECK(broker.Only().latch.state == State::kEstablished);
  CHECK(broker.Only().latch.spi_in == again[1].key.spi);
  broker.Unkeyed(again);
  broker.Pass(kPeerMs);
  CHECK(broker.Peers().empty());
}

TEST_CASE("A rekey moves its SPIs and nothing else") {
  LatchBroker broker(ServerPolicy());
  const std::vector<Sa> old = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Held();
  const Latch before = broker.Only().latch;
  const int moves = broker.observer.moves;
  const std::vector<Sa> fresh = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Gone(old);
  const Latch after = broker.Only().latch;
  CHECK(after.id == before.id);
  CHECK(after.spi_in == fresh[1].key.spi);
  CHECK(after.spi_out == fresh[0].key.spi);
  CHECK(after.state == State::kEstablished);
  CHECK(broker.observer.moves > moves);
}

TEST_CASE("The administrator breaks one peer of a socket, and gives it back") {
  LatchBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t id = broker.Only().latch.id;
  const std::vector<Sa> carol = broker.Keyed(8, "carol", "10.9.0.3");
  REQUIRE(broker.engine->AdminBreak(id) == Reason::kNone);
  const Latch& latch = broker.Peers()[0]->latch;
  CHECK(latch.state == State::kBroken);
  CHECK(latch.reason == Reason::kAdmin);
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 1, &bob[1]));
  CHECK(broker.SendsNothing(fd, "10.9.0.2", 1));
  CHECK(broker.TakesIn(fd, "10.9.0.3", 1, &carol[1]));
  CHECK(broker.Peer(fd, "10.9.0.2", 1).reason == Reason::kAdmin);
  const std::vector<Sa> rekeyed = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(latch.reason == Reason::kAdmin);
  SECTION("resumed") {
    REQUIRE(broker.engine->AdminResume(id) == Reason::kNone);
    CHECK(latch.state == State::kEstablished);
    CHECK(broker.TakesIn(fd, "10.9.0.2", 1, &rekeyed[1]));
    CHECK(broker.engine->AdminResume(id) == Reason::kBadRequest);
  }
  SECTION("resumed, and something else is against it") {
    broker.Keyed(9, "mallory", "10.9.0.2");
    REQUIRE(broker.engine->AdminResume(id) == Reason::kNone);
    CHECK(latch.state == State::kBroken);
    CHECK(latch.reason == Reason::kConflictSa);
  }
}

TEST_CASE(
    "They go with their socket, with its connection, and with the broker; no id comes again") {
  LatchBroker broker(ServerPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  const uint64_t id = broker.Only().latch.id;
  SECTION("closed") {
    broker.Pass(broker.options.reap_ms);
    broker.CloseSocket(fd);
    broker.Pass(broker.options.reap_ms);
    CHECK(broker.Peers().empty());
    CHECK(broker.observer.told[{id, State::kClosed}] == 1);
  }
  SECTION("stopped") {
    broker.engine->Stop();
    CHECK(broker.Peers().empty());
  }
  SECTION("killed") {
    broker.Crash();
    CHECK(broker.Only().latch.id > id);
    CHECK(broker.Only().latch.state == State::kEstablished);
  }
}

TEST_CASE("Where the SAs cannot be read, peers are suspect until they can") {
  LatchBroker broker(ServerPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Held();
  broker.kernel.blind = true;
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  CHECK(broker.Only().latch.state == State::kBroken);
  CHECK(broker.Only().latch.reason == Reason::kSuspectGap);
  broker.Pass(2 * kPeerMs);  // nothing is known to be gone
  broker.kernel.blind = false;
  broker.Pass(500);
  CHECK(broker.Only().latch.state == State::kEstablished);
}

TEST_CASE("A socket's latch says what its filter dropped; an SPD entry of a peer is the peer's") {
  LatchBroker broker(ServerPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Held();
  broker.kernel.dropped = 5;
  CHECK(broker.engine->LatchOf(fd)->dropped == 5);
  CHECK(broker.engine->Shown(broker.Only()).dropped == 0);
  const std::vector<SpdEntry> spd = *broker.kernel.DumpSpd();
  const SpdEntry entry = *std::ranges::find(spd, 7, &SpdEntry::reqid);
  uint64_t owner = 0;
  CHECK(broker.engine->OwnerOf(entry, owner) == wire::Owner::kLatch);
  CHECK(owner == broker.Only().latch.id);
}

}  // namespace
}  // namespace latchkey::broker
