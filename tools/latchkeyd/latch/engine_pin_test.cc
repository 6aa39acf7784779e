// How a latch's pins follow its SAs: rekeys from either end, reauthentication, and what must not be
// followed.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

struct Pinned : Broker {
  explicit Pinned(Pin pin) {
    policy::Rule rule = ProtectRule({"bob"});
    rule.protection.pin = pin;
    client.policy = MakePolicy({rule});
    pair = Keyed(7, "bob", "10.9.0.2");
    fd = Socket();
    const Answer answer = Connect(fd);
    REQUIRE(answer.verdict == Verdict::kLatched);
    id = answer.latch;
    engine->Tick(true);
  }

  const Latch& latch() const { return LatchOf(id); }
  const SocketPolicy& policy() const { return *kernel.sockets.at(fd).policy; }
  // The socket's pins, and what is shown of them, are these SAs'.
  void CheckPins(const Sa& out, const Sa& in) const {
    CHECK(latch().state == State::kEstablished);
    CHECK(policy().kind == Kind::kProtect);
    CHECK(policy().reqid == out.reqid);
    CHECK(policy().spi_out == out.key.spi);
    CHECK(policy().spi_in == in.key.spi);
    CHECK(latch().reqid == out.reqid);
    CHECK(latch().spi_out == out.key.spi);
    CHECK(latch().spi_in == in.key.spi);
    CHECK(kernel.borrowed == 0);
  }

  std::vector<Sa> pair;  // outgoing first
  int fd = -1;
  uint64_t id = 0;
};

TEST_CASE("spi: the end that began a rekey moves out at once, and in when the old one is deleted") {
  Pinned broker(Pin::kSpi);
  broker.CheckPins(broker.pair[0], broker.pair[1]);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  broker.engine->OnEvents(
      {{KernelEvent::Kind::kSaAdded, fresh[1]}, {KernelEvent::Kind::kSaAdded, fresh[0]}});
  broker.CheckPins(fresh[0], broker.pair[1]);
  SECTION("the old outgoing one is deleted") {
    broker.Gone(broker.pair[0]);
    broker.CheckPins(fresh[0], fresh[1]);
    broker.Gone(broker.pair[1]);
  }
  SECTION("the old incoming one is deleted first") {
    broker.Gone(broker.pair[1]);
    broker.CheckPins(fresh[0], fresh[1]);
    broker.Gone(broker.pair[0]);
  }
  SECTION("nothing is deleted: after a while it moves all the same") {
    broker.Pass(Options{}.overlap_ms - 1);
    broker.CheckPins(fresh[0], broker.pair[1]);
    broker.Pass(1);
    broker.CheckPins(fresh[0], fresh[1]);
    broker.Gone(broker.pair);
  }
  SECTION("nothing is deleted, and the socket cannot be had when the while is over") {
    broker.SocketOf(broker.fd).held = false;
    broker.Pass(Options{}.overlap_ms);
    broker.CheckPins(fresh[0], broker.pair[1]);
    broker.SocketOf(broker.fd).held = true;
    broker.Pass(500);
    broker.CheckPins(fresh[0], fresh[1]);
    broker.Gone(broker.pair);
  }
  broker.CheckPins(fresh[0], fresh[1]);
  // And the next rekey goes like the first.
  broker.Pass(10'000);
  const std::vector<Sa> next = broker.kernel.AddPair(7, "10.9.0.2");
  broker.engine->OnEvents(
      {{KernelEvent::Kind::kSaAdded, next[1]}, {KernelEvent::Kind::kSaAdded, next[0]}});
  broker.CheckPins(next[0], fresh[1]);
  broker.Gone(fresh);
  broker.CheckPins(next[0], next[1]);
  CHECK(broker.observer.told.empty());
}

TEST_CASE("spi: the end that answers a rekey has the new incoming SA first") {
  Pinned broker(Pin::kSpi);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(fresh[1]);
  broker.CheckPins(broker.pair[0], fresh[1]);
  broker.Hear(fresh[0]);
  broker.CheckPins(fresh[0], fresh[1]);
  broker.Gone(broker.pair);
  broker.CheckPins(fresh[0], fresh[1]);
}

TEST_CASE("an SA whose peer is not known yet is never moved to, and no conflict") {
  const Pin pin = GENERATE(Pin::kSpi, Pin::kReqid);
  Pinned broker(pin);
  const uint32_t spi_out = broker.latch().spi_out;
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  for (const Sa& sa : fresh) broker.keys.by_spi[sa.key.spi] = Identified::Pending();
  broker.Hear(fresh);
  INFO("pin " << static_cast<int>(pin));
  CHECK(broker.latch().state == State::kEstablished);
  CHECK(broker.latch().spi_out == spi_out);
  // One that could carry something under the latch has not that long: engine_restart_test.cc.
  broker.Pass(pin == Pin::kSpi ? 60'000 : Options{}.name_ms - 1);
  CHECK(broker.latch().state == State::kEstablished);
  CHECK(broker.latch().spi_out == spi_out);
  if (pin == Pin::kSpi) broker.CheckPins(broker.pair[0], broker.pair[1]);
  broker.keys.by_spi.clear();
  SECTION("bob") {
    broker.KeysChanged();
    CHECK(broker.latch().spi_out == fresh[0].key.spi);
  }
  SECTION("mallory") {
    broker.keys.by_spi[fresh[1].key.spi] =
        Identified::Known({Identity{"mallory", "me", ""}, false, {}});
    broker.KeysChanged();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("nobody") {
    broker.keys.by_spi[fresh[1].key.spi] = Identified::Nobody();
    broker.KeysChanged();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
}

TEST_CASE("an SA of another peer is a conflict before it is known how that one proved itself") {
  Pinned broker(GENERATE(Pin::kSpi, Pin::kReqid));
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  for (const Sa& sa : fresh) broker.keys.by_spi[sa.key.spi] = Identified::Pending();
  broker.Hear(fresh);
  REQUIRE(broker.latch().state == State::kEstablished);
  const auto learn = [&](const std::string& peer, const std::string& me) {
    for (const Sa& sa : fresh) broker.keys.by_spi[sa.key.spi] = Identified::Pending(peer, me);
    broker.KeysChanged();
  };
  SECTION("another peer") {
    learn("mallory", broker.latch().identity.local_id);
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("another of us") {
    learn(broker.latch().identity.peer_id, "somebody");
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("the same two: how they prove it counts") {
    learn(broker.latch().identity.peer_id, broker.latch().identity.local_id);
    CHECK(broker.latch().state == State::kEstablished);
    Identity other = broker.latch().identity;
    other.auth = "eap";
    for (const Sa& sa : fresh) {
      broker.keys.by_spi[sa.key.spi] = Identified::Known({other, false, {}});
    }
    broker.KeysChanged();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
}

TEST_CASE("while the only SAs left are pending the latch stalls, and it has an end") {
  Pinned broker(Pin::kSpi);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  for (const Sa& sa : fresh) broker.keys.by_spi[sa.key.spi] = Identified::Pending();
  if (GENERATE(false, true)) {  // break before make
    broker.Gone(broker.pair);
    CHECK(broker.observer.log.back() == "latch 1 stalls");
    broker.Hear(fresh);
  } else {
    broker.Hear(fresh);
    broker.Gone(broker.pair);
  }
  CHECK(broker.observer.log.back() == "latch 1 stalls");
  SECTION("known in the end") {
    broker.keys.by_spi.clear();
    broker.KeysChanged();
    CHECK(broker.observer.log.back() == "latch 1 moves");
    broker.CheckPins(fresh[0], fresh[1]);
  }
  SECTION("never known") {
    broker.Pass(Options{}.sa_grace_ms);
    CHECK(broker.latch().reason == Reason::kNoSa);
  }
}

TEST_CASE("an SA of nobody, or of another under the same reqid, breaks either pin") {
  for (const Pin pin : {Pin::kSpi, Pin::kReqid}) {
    for (const bool nobody : {true, false}) {
      Pinned broker(pin);
      if (nobody) {
        broker.keys.by_reqid.erase(7);
      } else {
        broker.keys.Name(7, "mallory");
      }
      broker.Hear(broker.kernel.AddPair(7, "10.9.0.2")[1]);
      INFO("pin " << static_cast<int>(pin) << " nobody " << nobody);
      CHECK(broker.latch().reason == Reason::kConflictSa);
      CHECK(broker.policy().kind == Kind::kBlock);
      CHECK(broker.SocketOf(broker.fd).aborted);
      CHECK(broker.observer.told.at({broker.id, State::kBroken}) == 1);
    }
  }
}

TEST_CASE("an impostor's SA that came and went between two looks is still seen") {
  for (const Pin pin : {Pin::kSpi, Pin::kReqid}) {
    Pinned broker(pin);
    broker.keys.Name(9, "mallory");
    const Sa brief = broker.kernel.AddPair(9, "10.9.0.2")[1];
    broker.kernel.RemoveSas(9);
    broker.engine->OnEvents(
        {{KernelEvent::Kind::kSaAdded, brief}, {KernelEvent::Kind::kSaDeleted, brief}});
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
}

TEST_CASE("reauthentication brings another reqid: the pins and the flow's entry follow") {
  const Pin pin = GENERATE(Pin::kSpi, Pin::kReqid);
  Pinned broker(pin);
  const int other = broker.Socket();  // to the same server: one entry serves both
  REQUIRE(broker.Connect(other).verdict == Verdict::kLatched);
  broker.keys.Name(8, "bob");
  const std::vector<Sa> fresh = broker.kernel.AddPair(8, "10.9.0.2");
  const Guard old = FlowGuard(broker.latch(), Options{}.guard_mark);
  INFO("pin " << static_cast<int>(pin));
  SECTION("break before make") {
    broker.Gone(broker.pair);
    CHECK(broker.observer.log.back().ends_with("stalls"));
    broker.Hear(fresh);
  }
  SECTION("make before break") {
    broker.Hear(fresh);
    CHECK(broker.latch().reqid == 7);
    broker.Gone(broker.pair);
  }
  CHECK(broker.latch().state == State::kEstablished);
  CHECK(broker.latch().reqid == 8);
  CHECK(broker.policy().reqid == 8);
  CHECK(broker.SocketOf(other).policy->reqid == 8);
  if (pin == Pin::kSpi) {
    broker.CheckPins(fresh[0], fresh[1]);
  } else {
    CHECK(broker.policy().spi_in == 0);
  }
  const Guard now = FlowGuard(broker.latch(), Options{}.guard_mark);
  CHECK_FALSE(broker.kernel.HasGuard(old));
  CHECK(broker.kernel.HasGuard(now));
  // Both lean on it: one's end does not take it from the other.
  broker.CloseSocket(other);
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  CHECK(broker.kernel.HasGuard(now));
  broker.CloseSocket(broker.fd);
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  CHECK(broker.kernel.guards.size() == 2);
  CHECK(broker.observer.journal.size() == 2);
}

TEST_CASE("reqid: the kernel follows rekeys by itself, and what is shown does too") {
  Pinned broker(Pin::kReqid);
  const SocketPolicy before = broker.policy();
  CHECK(before.spi_in == 0);
  CHECK(before.spi_out == 0);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  broker.kernel.fail_after = 1;  // nothing may be set
  broker.Hear(fresh[1]);
  CHECK(broker.latch().spi_in == fresh[1].key.spi);
  broker.Hear(fresh[0]);
  CHECK(broker.latch().spi_out == fresh[0].key.spi);
  broker.Gone(broker.pair);
  broker.Pass(60'000);
  CHECK(broker.kernel.fail_after == 1);
  CHECK(broker.policy().reqid == before.reqid);
  CHECK(broker.latch().spi_in == fresh[1].key.spi);
  CHECK(broker.latch().state == State::kEstablished);
}

TEST_CASE("pins that cannot follow stall the latch; it is tried again, and has an end") {
  Pinned broker(Pin::kSpi);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(fresh);  // the outgoing one moved, and the incoming one
  const std::vector<Sa> next = broker.kernel.AddPair(7, "10.9.0.2");
  broker.SocketOf(broker.fd).held = false;
  broker.Hear(next);
  broker.Gone(fresh);
  broker.Gone(broker.pair);
  CHECK(broker.observer.log.back() == "latch 1 stalls");
  SECTION("reached again") {
    broker.SocketOf(broker.fd).held = true;
    broker.Pass(500);
    broker.CheckPins(next[0], next[1]);
    CHECK(broker.observer.log.back() == "latch 1 moves");
  }
  SECTION("never") {
    broker.Pass(Options{}.sa_grace_ms);
    CHECK(broker.latch().reason == Reason::kNoSa);
  }
}

TEST_CASE("another host's SA with the SPI of ours is not taken for the one we are pinned to") {
  Pinned broker(Pin::kSpi);
  broker.keys.Name(11, "carol");
  std::vector<Sa> twin = broker.kernel.AddPair(11, "10.9.0.3");
  twin[1].key = broker.pair[1].key;
  twin[1].key.protocol = SaProtocol::kAh;
  broker.Hear(twin);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  broker.engine->OnEvents({{KernelEvent::Kind::kSaAdded, fresh[1]},
                           {KernelEvent::Kind::kSaAdded, fresh[0]},
                           {KernelEvent::Kind::kSaDeleted, broker.pair[1]}});
  broker.CheckPins(fresh[0], fresh[1]);
}

TEST_CASE("an outgoing SA without a replay window, as key managers install them, is fine") {
  for (const Pin pin : {Pin::kSpi, Pin::kReqid}) {
    policy::Rule rule = ProtectRule({"bob"});
    rule.protection.pin = pin;
    Broker broker(MakePolicy({rule}));
    broker.keys.Name(7, "bob");
    std::vector<Sa> pair = broker.kernel.AddPair(7, "10.9.0.2");
    for (Sa& sa : broker.kernel.sad) sa.protection.replay = sa.key == pair[1].key;
    broker.Hear(broker.kernel.sad);
    const int fd = broker.Socket();
    const Answer answer = broker.Connect(fd);
    REQUIRE(answer.verdict == Verdict::kLatched);
    CHECK(broker.LatchOf(answer.latch).protection.replay);
    std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
    fresh[0].protection.replay = false;
    broker.Hear(fresh);
    CHECK(broker.StateOf(answer.latch) == State::kEstablished);
    CHECK(broker.LatchOf(answer.latch).spi_out == fresh[0].key.spi);
    // An incoming one without is another matter.
    std::vector<Sa> weak = broker.kernel.AddPair(7, "10.9.0.2");
    weak[1].protection.replay = false;
    broker.Hear(weak[1]);
    CHECK(broker.LatchOf(answer.latch).reason == Reason::kConflictSa);
  }
}

TEST_CASE("a latch found to be another's by a new request is broken by it, not later") {
  Pinned broker(Pin::kSpi);
  broker.keys.Name(7, "mallory");
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kPeerMismatch);
  CHECK(broker.latch().reason == Reason::kConflictSa);
}

}  // namespace
}  // namespace latchkey::broker
