// The broker dies, and its key manager with it: who may still vouch for what.
#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

const Identity kBob{"bob", "me", "pubkey"};

struct Latched : Broker {
  explicit Latched(Pin pin, policy::OnBreak on_break = policy::OnBreak::kReset)
      : Broker(MakePolicy({MakeRule(pin, on_break)})) {
    keys.negotiates = true;
    Known(7, kBob);
    pair = kernel.AddPair(7, "10.9.0.2");
    for (Sa& sa : kernel.sad) sa.added = 1'700'000'000;
    pair = kernel.sad;
    Hear(pair);
    fd = Socket();
    const Answer answer = Connect(fd);
    REQUIRE(answer.verdict == Verdict::kLatched);
    id = answer.latch;
    kernel.sockets.at(fd).facts.mark = options.guard_mark;
  }

  static policy::Rule MakeRule(Pin pin, policy::OnBreak on_break) {
    policy::Rule rule = ProtectRule();
    rule.protection.pin = pin;
    rule.on_break = on_break;
    return rule;
  }

  void Known(uint32_t reqid, const Identity& identity) {
    keys.by_reqid[reqid] = Identified::Known({identity, true, {}});
  }
  // Broker and key manager are killed and started: this one knows nothing.
  void BothDie(Legacy legacy) {
    keys.by_reqid.clear();
    keys.tickets.clear();
    keys.unknown = Identified::Pending();
    Restart(std::move(legacy));
    REQUIRE(started);
  }
  void BothDie() { BothDie(Left()); }
  void Denies() {
    keys.unknown = Identified::Nobody();
    KeysChanged();
  }
  const Latch& latch() const { return LatchOf(id); }

  std::vector<Sa> pair;
  int fd = -1;
  uint64_t id = 0;
};

TEST_CASE("both restarted: a latch stands on the SAs that the journal vouches for, for a while") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.BothDie();
  REQUIRE(broker.latch().state == State::kEstablished);
  broker.Denies();
  CHECK(broker.latch().state == State::kEstablished);
  CHECK(broker.keys.tickets.size() == 1);  // others are asked for
  SECTION("until they come") {
    broker.Pass(Options{}.km_grace_ms - 1);
    broker.Known(7, kBob);
    for (const Sa& sa : broker.pair) broker.keys.by_spi[sa.key.spi] = Identified::Nobody();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Pass(Options{}.km_grace_ms);
    CHECK(broker.latch().state == State::kEstablished);
    CHECK(broker.SocketOf(broker.fd).policy->kind == SocketPolicy::Kind::kProtect);
    CHECK(broker.latch().spi_out != broker.pair[0].key.spi);
  }
  SECTION("until grace is over") {
    broker.Pass(Options{}.km_grace_ms - 1);
    REQUIRE(broker.latch().state == State::kEstablished);
    broker.Pass(1);
    CHECK(broker.latch().reason == Reason::kKmLost);
    CHECK(broker.SocketOf(broker.fd).aborted);
  }
  SECTION("until it says that they are another's") {
    broker.Known(7, {"mallory", "me", "pubkey"});
    broker.KeysChanged();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("until it knows them again after all") {
    broker.Known(7, kBob);
    broker.KeysChanged();
    broker.Pass(Options{}.km_grace_ms);
    CHECK(broker.latch().state == State::kEstablished);
    // And from then on its no counts as before.
    broker.keys.by_reqid.clear();
    broker.Denies();
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("until one of them changes") {
    Sa changed = broker.pair[1];
    changed.selector.family = Family::kV4;
    broker.Hear(changed);
    CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("and over another death of both") {
    broker.BothDie();
    broker.Denies();
    CHECK(broker.latch().state == State::kEstablished);
    broker.Pass(Options{}.km_grace_ms);
    CHECK(broker.latch().reason == Reason::kKmLost);
  }
}

TEST_CASE("both restarted: what is not the very SA of before vouches for nothing") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  Sa& in = broker.kernel.sad[1];
  Reason reason = Reason::kKmLost;
  SECTION("made at another time") { ++in.added; }
  SECTION("of another selector") { in.selector.family = Family::kV4; }
  SECTION("offloaded") { in.offload = Offload::kCrypto; }
  SECTION("of another key length") {
    in.protection.key_bits = 128;
    reason = Reason::kConflictSa;
  }
  SECTION("nobody wrote it down") {
    Legacy legacy = broker.Left();
    legacy.vouchers.clear();
    broker.BothDie(legacy);
  }
  SECTION("of another identity than the latch's") {
    Legacy legacy = broker.Left();
    for (Voucher& voucher : legacy.vouchers) voucher.identity.peer_id = "mallory";
    broker.BothDie(legacy);
    reason = Reason::kConflictSa;
  }
  if (broker.keys.by_reqid.contains(7)) broker.BothDie();
  broker.Denies();
  CHECK(broker.latch().reason == reason);
  CHECK(broker.SocketOf(broker.fd).policy->kind == SocketPolicy::Kind::kBlock);
}

TEST_CASE("an SA that came after the broker, and that is nobody's, is a conflict as ever") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.BothDie();
  broker.Denies();
  broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
  CHECK(broker.latch().reason == Reason::kConflictSa);
}

TEST_CASE("who vouches is written down: while it is so, and not what an administrator wrote") {
  Latched broker(Pin::kSpi);
  REQUIRE(broker.observer.vouchers.size() == 2);
  CHECK(broker.observer.vouchers.at(broker.pair[0].key) == Voucher{broker.pair[0], kBob});
  SECTION("gone") {
    broker.Gone(broker.pair);
    CHECK(broker.observer.vouchers.empty());
  }
  SECTION("flushed") {
    broker.kernel.sad.clear();
    broker.engine->OnEvents({{KernelEvent::Kind::kSaFlushed, {}}});
    CHECK(broker.observer.vouchers.empty());
  }
  SECTION("denied") {
    broker.keys.by_reqid[7] = Identified::Nobody();
    broker.KeysChanged();
    CHECK(broker.observer.vouchers.empty());
  }
  SECTION("its key manager is away") {
    broker.keys.by_reqid[7] = Identified::Nobody(Reason::kKmLost);
    broker.KeysChanged();
    CHECK(broker.observer.vouchers.size() == 2);
  }
  SECTION("another's") {
    broker.Known(7, {"carol", "me", "psk"});
    broker.KeysChanged();
    CHECK(broker.observer.vouchers.at(broker.pair[0].key).identity.peer_id == "carol");
  }
  SECTION("manual") {
    broker.Keyed(8, "carol", "10.9.0.3");
    CHECK(broker.observer.vouchers.size() == 2);
  }
  SECTION("and that a latch moved") {
    broker.Known(8, kBob);
    broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
    broker.Gone(broker.pair);
    REQUIRE(broker.latch().reqid == 8);
    CHECK(broker.observer.moves > 0);
  }
}

TEST_CASE("over SAs that nobody can speak for, a new connect asks for others") {
  Latched broker(Pin::kSpi);
  const bool both = GENERATE(true, false);
  const bool vouched = !both || GENERATE(true, false);
  if (both) {
    Legacy legacy = broker.Left();
    if (!vouched) legacy.vouchers.clear();
    broker.BothDie(legacy);
    broker.Denies();
  } else {
    broker.keys.by_reqid[7] = Identified::Nobody(Reason::kKmLost);
    broker.KeysChanged();
  }
  const bool nonblocking = GENERATE(false, true);
  const Answer answer = broker.Begin(broker.Socket(), nonblocking);
  REQUIRE(answer.verdict == Verdict::kWait);
  if (nonblocking) broker.Pass(Options{}.inline_ms);
  REQUIRE(broker.AnswerTo(answer.ticket).has_value() == nonblocking);
  const uint64_t larval = nonblocking ? broker.AnswerTo(answer.ticket)->latch : 0;
  SECTION("made") {
    for (const Sa& sa : broker.pair) {
      broker.keys.by_spi[sa.key.spi] =
          Identified::Nobody(both ? Reason::kPeerUnknown : Reason::kKmLost);
    }
    broker.Known(7, kBob);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Negotiated("10.9.0.2");
    if (nonblocking) {
      CHECK(broker.StateOf(larval) == (vouched ? State::kEstablished : State::kBroken));
    } else {
      CHECK(broker.AnswerTo(answer.ticket)->verdict ==
            (vouched ? Verdict::kLatched : Verdict::kRefused));
    }
  }
  SECTION("not made: they are still there, so it is no lack") {
    broker.Negotiated("10.9.0.2", Reason::kAcquireTimeout);
    if (nonblocking) {
      CHECK(broker.LatchOf(larval).reason == Reason::kKmLost);
    } else {
      CHECK(broker.RefusalOf(answer.ticket) == Reason::kKmLost);
    }
  }
  SECTION("not made, and why counts") {
    broker.Negotiated("10.9.0.2", Reason::kAuthFailed);
    if (nonblocking) {
      CHECK(broker.LatchOf(larval).reason == Reason::kAuthFailed);
    } else {
      CHECK(broker.RefusalOf(answer.ticket) == Reason::kAuthFailed);
    }
  }
}

TEST_CASE("a key manager comes back, and the SAs are gone: others are asked for") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  broker.kernel.sad.clear();
  KeyEvent returned;
  returned.kind = KeyEvent::Kind::kReturned;
  if (GENERATE(true, false)) {  // it alone was away
    broker.engine->OnEvents({{KernelEvent::Kind::kSaFlushed, {}}});
    // A peer or an administrator who ends the SAs while it is there means it.
    broker.Pass(3'000);
    REQUIRE(broker.keys.tickets.empty());
  } else {
    broker.BothDie();
  }
  broker.keys.events.push_back(returned);
  broker.engine->OnKeys();
  CHECK(broker.keys.tickets.size() == 1);
  SECTION("made") {
    broker.Known(7, kBob);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.Pass(Options{}.sa_grace_ms);
    CHECK(broker.latch().state == State::kEstablished);
  }
  SECTION("it had not read its configurations: asked again") {
    broker.Negotiated("10.9.0.2", Reason::kNoChild);
    CHECK(broker.keys.tickets.empty());
    broker.Pass(3'000);
    CHECK(broker.keys.tickets.size() == 1);
  }
  SECTION("not made") {
    broker.Pass(Options{}.sa_grace_ms);
    CHECK(broker.latch().reason == Reason::kNoSa);
  }
}

TEST_CASE("a journal with holes: what bears the guard bit and is known to nobody is cut off") {
  Latched broker(GENERATE(Pin::kSpi, Pin::kReqid));
  const int lost = broker.Socket();
  const uint64_t forgotten = broker.Connect(lost, "10.9.0.2", 444).latch;
  REQUIRE(forgotten != 0);
  const int other = broker.Socket();  // never latched
  broker.SocketOf(other).facts.tcp_state = 1;
  Legacy legacy = broker.Left();
  std::erase_if(legacy.latches, [&](const Entry& each) { return each.latch.id == forgotten; });
  const auto of_lost = [](const Guard& guard) { return guard.selector.destination_port == 444; };
  REQUIRE(std::ranges::any_of(broker.kernel.guards, of_lost));
  std::erase_if(legacy.guards, of_lost);
  // Others' entries, and incoming ones, stay.
  SpdEntry system;
  system.dir = 1;
  system.mark = system.mark_mask = 1;
  broker.kernel.spd = {system};
  legacy.incomplete = GENERATE(true, false);
  const bool cut = legacy.incomplete;
  broker.Restart(std::move(legacy));
  REQUIRE(broker.started);
  CHECK(broker.SocketOf(lost).aborted == cut);
  CHECK((broker.SocketOf(lost).policy->kind == SocketPolicy::Kind::kBlock) == cut);
  CHECK(std::ranges::any_of(broker.kernel.guards, of_lost) != cut);
  CHECK_FALSE(broker.SocketOf(broker.fd).aborted);
  CHECK_FALSE(broker.SocketOf(other).aborted);
  CHECK(broker.latch().state == State::kEstablished);
  CHECK(broker.observer.warnings == (cut ? 1 : 0));
  CHECK(broker.kernel.borrowed == 0);
}

TEST_CASE("a latch of which a later line is garbled is broken, and stays so") {
  Latched broker(Pin::kSpi, GENERATE(policy::OnBreak::kReset, policy::OnBreak::kSuspend));
  Legacy legacy = broker.Left();
  legacy.incomplete = true;
  legacy.suspects = {broker.id};
  broker.Restart(std::move(legacy));
  broker.Pass(10'000);
  CHECK(broker.latch().reason == Reason::kSuspectGap);
  CHECK(broker.latch().state == State::kBroken);
  if (broker.latch().suspends) {
    CHECK(broker.engine->AdminResume(broker.id) == Reason::kNone);
    CHECK(broker.latch().state == State::kEstablished);
  }
}

TEST_CASE("of two records of one socket the later counts") {
  Latched broker(Pin::kSpi);
  Legacy legacy = broker.Left();
  legacy.latches.push_back(legacy.latches[0]);
  legacy.latches[0].latch.identity.peer_id = "an earlier flow's";
  legacy.latches[1].latch.id += 4;
  broker.Restart(std::move(legacy));
  CHECK(broker.StateOf(broker.id) == State::kClosed);
  CHECK(broker.StateOf(broker.id + 4) == State::kEstablished);
}

TEST_CASE("ids are not given again after a restart") {
  Latched broker(Pin::kSpi);
  Legacy legacy = broker.Left();
  legacy.last_id = 41;
  legacy.latches.clear();
  broker.CloseSocket(broker.fd);
  broker.Restart(std::move(legacy));
  CHECK(broker.engine->database().last_id() == 41);
  CHECK(broker.Connect(broker.Socket()).latch == 42);
}

TEST_CASE("a broken latch is taken over as it was, and not broken again") {
  Latched broker(Pin::kSpi);
  broker.keys.negotiates = true;
  const int fd = broker.Socket();
  const Answer wait = broker.Begin(fd, /*nonblocking=*/true, "10.9.0.3");
  broker.Pass(Options{}.inline_ms);
  const uint64_t id = broker.AnswerTo(wait.ticket)->latch;
  broker.Negotiated("10.9.0.3", Reason::kAuthFailed);
  REQUIRE(broker.LatchOf(id).reason == Reason::kAuthFailed);
  broker.observer.log.clear();
  broker.observer.told.clear();
  broker.SocketOf(fd).policy.reset();
  broker.Crash();
  CHECK(broker.LatchOf(id).state == State::kBroken);
  CHECK(broker.LatchOf(id).reason == Reason::kAuthFailed);
  CHECK(broker.engine->database().Find(id)->refused);
  CHECK(broker.observer.told.empty());
  CHECK(std::ranges::count(broker.observer.log,
                           "latch " + std::to_string(id) + " BROKEN -> BROKEN: auth-failed") == 1);
  CHECK(broker.SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
}

TEST_CASE("an SA that never gets a name, beside a good pair, is a conflict in the end") {
  const Pin pin = GENERATE(Pin::kSpi, Pin::kReqid);
  Latched broker(pin);
  for (const Sa& sa : broker.pair) broker.keys.by_spi[sa.key.spi] = broker.keys.by_reqid[7];
  broker.keys.by_reqid[7] = Identified::Pending();
  const std::vector<Sa> fresh = broker.kernel.AddPair(7, "10.9.0.2");
  broker.Hear(fresh);
  broker.Pass(Options{}.name_ms - 1);
  broker.KeysChanged();  // asking again begins nothing anew
  REQUIRE(broker.latch().state == State::kEstablished);
  SECTION("named in time") {
    broker.Known(7, kBob);
    broker.KeysChanged();
    broker.Pass(1);
    CHECK(broker.latch().state == State::kEstablished);
  }
  SECTION("not named") {
    broker.Pass(1);
    // Under SPIs it cannot carry anything.
    CHECK(broker.StateOf(broker.id) == (pin == Pin::kReqid ? State::kBroken : State::kEstablished));
    if (pin == Pin::kReqid) CHECK(broker.latch().reason == Reason::kConflictSa);
  }
  SECTION("gone again") {
    broker.Gone(fresh);
    broker.Pass(1);
    CHECK(broker.latch().state == State::kEstablished);
  }
}

}  // namespace
}  // namespace latchkey::broker
