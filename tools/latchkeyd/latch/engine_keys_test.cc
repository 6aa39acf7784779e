// Key managers that go away and come back, and peers that are found dead.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

struct Latched : Broker {
  explicit Latched(Pin pin) {
    policy::Rule rule = ProtectRule();
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
  // The key manager is gone, or back without what it knew; `but` are those it knows.
  void Lose(const std::vector<Sa>& but = {}) {
    keys.unknown = Identified::Nobody(Reason::kKmLost);
    keys.by_reqid.clear();
    for (const Sa& sa : but) keys.by_spi[sa.key.spi] = Bob();
    KeysChanged();
  }
  static Identified Bob() { return Identified::Known({Identity{"bob", "me", "manual"}, true, {}}); }
  void Die() {
    KeyEvent event;
    event.kind = KeyEvent::Kind::kPeerDead;
    event.peer = Identity{"bob", "me", "manual"};
    event.remote = Address::Parse("10.9.0.2").value();
    keys.events.push_back(event);
    engine->OnKeys();
  }

  std::vector<Sa> pair;  // outgoing first
  int fd = -1;
  uint64_t id = 0;
};

TEST_CASE("km-lost: a latch is kept a while, and broken when nobody vouches for its SAs by then") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.Lose();
  CHECK(broker.latch().state == State::kEstablished);
  CHECK(broker.observer.log.back() == "latch 1 new -> ESTABLISHED: none");  // data moves on
  broker.Pass(Options{}.km_grace_ms - 1);
  CHECK(broker.latch().state == State::kEstablished);
  SECTION("back, and it knows them") {
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    broker.Pass(60'000);
    CHECK(broker.latch().state == State::kEstablished);
    // Another time counts anew.
    broker.Lose();
    broker.Pass(Options{}.km_grace_ms - 1);
    CHECK(broker.latch().state == State::kEstablished);
    broker.Pass(1);
    CHECK(broker.latch().reason == Reason::kKmLost);
  }
  SECTION("back, asking first") {
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.KeysChanged();
    CHECK(broker.latch().state == State::kEstablished);
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    broker.Pass(60'000);
    CHECK(broker.latch().state == State::kEstablished);
  }
  SECTION("back, and they are another's") {
    broker.keys.Name(7, "mallory");
    broker.KeysChanged();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("back, and they are nobody's") {
    broker.keys.unknown = Identified::Nobody();
    broker.KeysChanged();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("not back") {
    broker.Pass(1);
    CHECK(broker.latch().reason == Reason::kKmLost);
    CHECK(broker.SocketOf(broker.fd).policy->kind == Kind::kBlock);
    CHECK(broker.SocketOf(broker.fd).aborted);
    CHECK(broker.observer.told.at({broker.id, State::kBroken}) == 1);
  }
  SECTION("a verified pair beside the old one: the latch lives on, and moves") {
    const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
    for (const Sa& sa : fresh) broker.keys.by_spi[sa.key.spi] = Latched::Bob();
    broker.engine->OnEvents(
        {{KernelEvent::Kind::kSaAdded, fresh[1]}, {KernelEvent::Kind::kSaAdded, fresh[0]}});
    CHECK(broker.latch().spi_out == fresh[0].key.spi);
    CHECK(broker.latch().spi_in == fresh[1].key.spi);
    broker.Pass(60'000);
    CHECK(broker.latch().state == State::kEstablished);
    broker.Gone(broker.pair);
    CHECK(broker.latch().state == State::kEstablished);
  }
  SECTION("its SAs go too: that is what it ends of") {
    broker.Gone(broker.pair);
    CHECK(broker.observer.log.back() == "latch 1 stalls");
    broker.Pass(1);
    CHECK(broker.latch().reason == Reason::kKmLost);
  }
}

TEST_CASE("a key manager that came back is asked for new SAs, and again: it may not be ready yet") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.Lose();  // and does not negotiate yet
  broker.keys.negotiates = true;
  broker.Pass(2'999);
  CHECK(broker.keys.tickets.empty());
  broker.Pass(1);
  CHECK(broker.keys.tickets.size() == 1);
}

TEST_CASE("where new SAs stand nobody is asked for more, be the old ones there for ever") {
  const Pin pin = GENERATE(Pin::kSpi, Pin::kReqid);
  Latched broker(pin);
  broker.keys.negotiates = true;
  broker.Lose();
  REQUIRE(broker.keys.asked == 1);
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  for (const Sa& sa : fresh) broker.keys.by_spi[sa.key.spi] = Latched::Bob();
  broker.Hear(fresh);
  REQUIRE(broker.latch().spi_out == fresh[0].key.spi);
  // Each answer is a reason to look again: asking then would be a loop.
  for (int i = 0; i < 3; ++i) broker.Negotiated("10.9.0.2");
  broker.Pass(60'000);
  CHECK(broker.keys.asked == 1);
  CHECK(broker.keys.tickets.empty());
  SECTION("until they are gone too") {
    broker.Gone(fresh);
    // Pinned by SPI the old ones are nothing to it: whoever ended the new ones meant it.
    CHECK(broker.keys.asked == (pin == Pin::kReqid ? 2 : 1));
  }
}

TEST_CASE("asked about, and gone meanwhile: that is no-sa") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.keys.unknown = Identified::Pending();
  broker.keys.by_reqid.clear();
  broker.KeysChanged();
  broker.Pass(1);
  broker.Gone(broker.pair);
  broker.Pass(Options{}.sa_grace_ms - 1);
  CHECK(broker.latch().state == State::kEstablished);
  broker.Pass(1);
  CHECK(broker.latch().reason == Reason::kNoSa);
}

TEST_CASE("km-lost: new SAs of whom nobody can be asked") {
  SECTION("pinned by SPI they carry nothing of the latch") {
    Latched broker(Pin::kSpi);
    broker.Lose(broker.pair);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Pass(60'000);
    CHECK(broker.latch().state == State::kEstablished);
    CHECK(broker.latch().spi_out == broker.pair[0].key.spi);
  }
  SECTION("pinned by reqid they do: not for longer than the while, known ones beside or not") {
    Latched broker(Pin::kReqid);
    broker.Lose(broker.pair);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.latch().state == State::kEstablished);
    broker.Pass(Options{}.km_grace_ms);
    CHECK(broker.latch().reason == Reason::kKmLost);
  }
  SECTION("of other protection they are a conflict, whoever's they are") {
    Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
    broker.Lose(broker.pair);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2", 128));
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
}

TEST_CASE("pending SAs of other protection are a conflict, whoever's they are") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.keys.by_reqid[9] = Identified::Pending();
  broker.Hear(broker.kernel.AddPair(9, "10.9.0.2", 128));
  CHECK(broker.latch().reason == Reason::kConflictSa);
}

TEST_CASE("a key manager that was away makes no listener's peer ambiguous") {
  Latched broker(Pin::kSpi);
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.Lose();
  SECTION("accept meanwhile says why not") {
    CHECK(broker.Accept(broker.Child(listener)).reason == Reason::kKmLost);
  }
  SECTION("back with what it knew") {
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    CHECK(broker.Accept(broker.Child(listener)).verdict == Verdict::kLatched);
  }
  SECTION("back without, and a new pair of the same peer") {
    broker.Gone(broker.pair);
    broker.keys.Name(7, "bob");
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.Accept(broker.Child(listener)).verdict == Verdict::kLatched);
  }
  SECTION("back, and it was another's all along") {
    broker.keys.Name(7, "mallory");
    broker.KeysChanged();
    CHECK(broker.Accept(broker.Child(listener)).reason == Reason::kAmbiguousPeer);
  }
}

TEST_CASE("a peer found dead: its latches end so when their SAs go") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  SECTION("the key manager says so first") {
    broker.Die();
    CHECK(broker.latch().state == State::kEstablished);
    broker.Gone(broker.pair[0]);
    CHECK(broker.latch().reason == Reason::kPeerDead);
    CHECK(broker.SocketOf(broker.fd).aborted);
  }
  SECTION("the SAs go first") {
    broker.Gone(broker.pair);
    CHECK(broker.latch().state == State::kEstablished);
    broker.Die();
    CHECK(broker.latch().reason == Reason::kPeerDead);
  }
  SECTION("another peer") {
    KeyEvent event;
    event.kind = KeyEvent::Kind::kPeerDead;
    event.peer = Identity{"carol", "me", "manual"};
    event.remote = Address::Parse("10.9.0.2").value();
    broker.keys.events.push_back(event);
    broker.engine->OnKeys();
    broker.Gone(broker.pair);
    CHECK(broker.latch().state == State::kEstablished);
  }
  SECTION("that peer elsewhere") {
    broker.Keyed(8, "bob", "10.9.0.3");
    const Answer other = broker.Connect(broker.Socket(), "10.9.0.3");
    broker.Die();
    broker.Gone(broker.pair);
    CHECK(broker.latch().reason == Reason::kPeerDead);
    CHECK(broker.StateOf(other.latch) == State::kEstablished);
  }
  SECTION("another pair with it lives") {
    broker.keys.Name(8, "bob");
    broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
    broker.Die();
    broker.Gone(broker.pair);
    CHECK(broker.latch().state == State::kEstablished);
    CHECK(broker.latch().reqid == 8);
  }
  SECTION("it is back before its SAs go") {
    broker.Die();
    const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
    broker.Hear(fresh);
    broker.Gone(broker.pair);
    CHECK(broker.latch().state == State::kEstablished);
    // What went wrong then is no reason for what goes wrong now.
    broker.Gone(fresh);
    CHECK(broker.latch().state == State::kEstablished);
    broker.Pass(Options{}.sa_grace_ms);
    CHECK(broker.latch().reason == Reason::kNoSa);
  }
  SECTION("long ago") {
    broker.Die();
    broker.Pass(10'001);
    broker.Gone(broker.pair);
    CHECK(broker.latch().state == State::kEstablished);
  }
}

TEST_CASE("while the kernel's SAs cannot be read nothing is latched, and nothing recovers") {
  policy::Rule rule = ProtectRule();
  rule.on_break = policy::OnBreak::kSuspend;
  Broker broker(MakePolicy({rule}));
  broker.keys.negotiates = true;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  broker.kernel.blind = true;
  const bool spd = GENERATE(false, true);
  if (spd) {
    // The SPD alone: what is latched does not lean on it.
    broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
    REQUIRE(broker.StateOf(answer.latch) == State::kEstablished);
  }
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  REQUIRE(broker.LatchOf(answer.latch).reason == Reason::kSuspectGap);
  CHECK(broker.SocketOf(fd).policy->kind == Kind::kBlock);
  SECTION("still not") {
    broker.Keyed(8, "carol", "10.9.0.3");
    CHECK(broker.StateOf(answer.latch) == State::kBroken);
    broker.engine->Tick();
    CHECK(broker.StateOf(answer.latch) == State::kBroken);
    CHECK(broker.Begin(broker.Socket()).reason == Reason::kSuspectGap);
    CHECK(broker.StateOf(answer.latch) == State::kBroken);
  }
  SECTION("again, and nothing had happened") {
    broker.kernel.blind = false;
    broker.engine->Tick();
    CHECK(broker.StateOf(answer.latch) == State::kEstablished);
    CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kLatched);
  }
  SECTION("again, and something had") {
    broker.keys.Name(9, "mallory");
    broker.kernel.AddPair(9, "10.9.0.2");
    broker.kernel.blind = false;
    CHECK(broker.Begin(broker.Socket()).reason == Reason::kAmbiguousPeer);
    CHECK(broker.StateOf(answer.latch) == State::kBroken);
  }
}

}  // namespace
}  // namespace latchkey::broker
