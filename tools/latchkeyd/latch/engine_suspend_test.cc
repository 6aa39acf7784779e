// on_break = "suspend": broken latches that keep their socket, and come back; and the
// administrator.
#include <catch2/catch.hpp>
#include <vector>

#include "tools/latchkeyd/latch/engine_suspend_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

TEST_CASE("a suspended latch keeps its socket, blocked, and is back when all conflicts are gone") {
  OneLatch rig(policy::OnBreak::kSuspend, GENERATE(Pin::kSpi, Pin::kReqid));
  const Latch before = rig.latch();
  const std::vector<Sa> one = rig.Strange();
  rig.CheckSuspended(Reason::kConflictSa);
  const std::vector<Sa> two = rig.Strange(8, 128);
  rig.Gone(one);
  rig.CheckSuspended(Reason::kConflictSa);
  rig.Gone(two[0]);
  rig.CheckSuspended(Reason::kConflictSa);
  CHECK(rig.told() == 1);
  rig.Gone(two[1]);
  rig.CheckBack();
  CHECK(rig.observer.told.at({rig.id, State::kEstablished}) == 1);
  CHECK(rig.latch().identity == before.identity);
  CHECK(rig.latch().protection == before.protection);
  // And again.
  rig.Strange();
  rig.CheckSuspended(Reason::kConflictSa);
  CHECK(rig.told() == 2);
}

TEST_CASE("an implicit latch suspends where the system's file says so") {
  for (const bool suspends : {false, true}) {
    Broker broker(MakePolicy({}));
    policy::SystemPolicy system;
    if (suspends) system.on_break = policy::OnBreak::kSuspend;
    broker.options.system = std::make_shared<const policy::SystemPolicy>(system);
    broker.Restart(Legacy{});
    const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
    SpdEntry in = Spd(false, 7);
    in.dir = 0;
    broker.kernel.spd = {Spd(false, 7), in};
    broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
    const int client = broker.Socket();
    const Answer connected = broker.Connect(client);
    const int listener = broker.Listener("10.9.0.1", 81);
    REQUIRE(broker.Listen(listener).verdict == Verdict::kBypass);
    const int child = broker.Child(listener);
    const Answer accepted = broker.Accept(child);
    const std::pair<int, Answer> both[] = {{client, connected}, {child, accepted}};
    for (const auto& [fd, answer] : both) {
      REQUIRE(answer.verdict == Verdict::kLatched);
      CHECK(broker.LatchOf(answer.latch).implicit);
      CHECK(broker.LatchOf(answer.latch).suspends == suspends);
    }
    broker.keys.Name(9, "mallory");
    const std::vector<Sa> strange = broker.kernel.AddPair(9, "10.9.0.2");
    broker.Hear(strange);
    for (const auto& [fd, answer] : both) {
      CHECK(broker.StateOf(answer.latch) == State::kBroken);
      CHECK(broker.kernel.sockets.at(fd).aborted != suspends);
    }
    broker.Gone(strange);
    for (const auto& [fd, answer] : both) {
      CHECK(broker.StateOf(answer.latch) == (suspends ? State::kEstablished : State::kBroken));
    }
  }
}

TEST_CASE("it is not back while anything is in doubt") {
  OneLatch rig(policy::OnBreak::kSuspend, GENERATE(Pin::kSpi, Pin::kReqid));
  const std::vector<Sa> strange = rig.Strange();
  SECTION("an SA whose peer is being asked for") {
    rig.keys.by_reqid[8] = Identified::Pending();
    rig.Hear(rig.kernel.AddPair(8, "10.9.0.2"));
    rig.Gone(strange);
    rig.CheckSuspended(Reason::kConflictSa);
    rig.keys.Name(8, "bob");
    rig.KeysChanged();
    rig.CheckBack();
  }
  SECTION("nobody to ask about its own") {
    rig.keys.by_reqid[7] = Identified::Nobody(Reason::kKmLost);
    rig.KeysChanged();
    rig.Gone(strange);
    rig.CheckSuspended(Reason::kConflictSa);
    rig.keys.Name(7, "bob");
    rig.KeysChanged();
    rig.CheckBack();
  }
  SECTION("its own SAs gone") {
    rig.Gone(rig.pair);
    rig.Gone(strange);
    rig.CheckSuspended(Reason::kConflictSa);
    const std::vector<Sa> fresh = rig.kernel.AddPair(7, "10.9.0.2");
    rig.Hear(fresh[0]);
    rig.CheckSuspended(Reason::kConflictSa);
    rig.Hear(fresh[1]);
    rig.CheckBack();
    CHECK(rig.latch().spi_out == fresh[0].key.spi);
    CHECK(rig.latch().spi_in == fresh[1].key.spi);
  }
  SECTION("what the SPD says") {
    rig.UseSpd({Spd(/*block=*/true)});
    rig.Gone(strange);
    rig.CheckSuspended(Reason::kConflictSa);
    rig.UseSpd({});
    rig.CheckBack();
  }
  SECTION("the socket cannot be had, or set") {
    if (GENERATE(false, true)) {
      rig.kernel.fail_after = 1;
    } else {
      rig.SocketOf(rig.fd).held = false;
    }
    rig.Gone(strange);
    CHECK(rig.latch().state == State::kBroken);
    rig.SocketOf(rig.fd).held = true;
    rig.Pass(Options{}.reap_ms);
    rig.CheckBack();
  }
}

TEST_CASE("it suspends for every reason, and is back from each") {
  OneLatch rig(policy::OnBreak::kSuspend);
  SECTION("no-sa") {
    rig.Gone(rig.pair);
    rig.Pass(Options{}.sa_grace_ms);
    rig.CheckSuspended(Reason::kNoSa);
    rig.Keyed(7, "bob", "10.9.0.2");
  }
  SECTION("km-lost") {
    rig.keys.by_reqid[7] = Identified::Nobody(Reason::kKmLost);
    rig.KeysChanged();
    rig.Pass(Options{}.km_grace_ms);
    rig.CheckSuspended(Reason::kKmLost);
    rig.keys.Name(7, "bob");
    rig.KeysChanged();
  }
  SECTION("peer-dead") {
    rig.Gone(rig.pair);
    KeyEvent event;
    event.kind = KeyEvent::Kind::kPeerDead;
    event.peer = Identity{"bob", "me", "manual"};
    event.remote = Address::Parse("10.9.0.2").value();
    rig.keys.events.push_back(event);
    rig.engine->OnKeys();
    rig.CheckSuspended(Reason::kPeerDead);
    rig.Keyed(7, "bob", "10.9.0.2");
  }
  SECTION("conflict-spd") {
    rig.UseSpd({Spd(/*block=*/true)});
    rig.CheckSuspended(Reason::kConflictSpd);
    rig.UseSpd({});
  }
  rig.CheckBack();
  CHECK(rig.told() == 1);
}

TEST_CASE("with the reset disposition a latch that is broken stays so, and its socket ends") {
  OneLatch rig(policy::OnBreak::kReset, GENERATE(Pin::kSpi, Pin::kReqid));
  const std::vector<Sa> strange = rig.Strange();
  CHECK(rig.latch().state == State::kBroken);
  CHECK(rig.SocketOf(rig.fd).policy->kind == Kind::kBlock);
  CHECK(rig.SocketOf(rig.fd).aborted);
  rig.Gone(strange);
  rig.UseSpd({});
  CHECK(rig.latch().state == State::kBroken);
  CHECK(rig.engine->AdminResume(rig.id) == Reason::kBadRequest);
  CHECK(rig.engine->AdminBreak(rig.id) == Reason::kBadRequest);
  CHECK(rig.told() == 1);
}

TEST_CASE("the administrator breaks, and lets go on") {
  OneLatch rig(policy::OnBreak::kSuspend);
  CHECK(rig.engine->AdminBreak(77) == Reason::kBadRequest);
  CHECK(rig.engine->AdminResume(rig.id) == Reason::kBadRequest);
  CHECK(rig.engine->AdminBreak(rig.id) == Reason::kNone);
  rig.CheckSuspended(Reason::kAdmin);
  // Nothing but the administrator brings it back.
  rig.Gone(rig.Strange());
  rig.KeysChanged();
  rig.Pass(60'000);
  rig.UseSpd({});
  rig.CheckSuspended(Reason::kAdmin);
  SECTION("resumed") {
    CHECK(rig.engine->AdminResume(rig.id) == Reason::kNone);
    rig.CheckBack();
    CHECK(rig.engine->AdminResume(rig.id) == Reason::kBadRequest);
  }
  SECTION("resumed while another conflict is there") {
    const std::vector<Sa> strange = rig.Strange();
    CHECK(rig.engine->AdminResume(rig.id) == Reason::kNone);
    rig.CheckSuspended(Reason::kConflictSa);
    rig.Gone(strange);
    rig.CheckBack();
  }
  SECTION("a restart does not resume it") {
    rig.Crash();
    rig.CheckSuspended(Reason::kAdmin);
    CHECK(rig.engine->AdminResume(rig.id) == Reason::kNone);
    rig.CheckBack();
  }
  CHECK(rig.told() >= 1);
}

TEST_CASE("the administrator breaks what is suspended already: that too outlives a restart") {
  OneLatch rig(policy::OnBreak::kSuspend);
  const std::vector<Sa> strange = rig.Strange();
  CHECK(rig.engine->AdminBreak(rig.id) == Reason::kNone);
  rig.CheckSuspended(Reason::kAdmin);
  CHECK(rig.told() == 1);
  SECTION("held by the administrator") {
    rig.Crash();
    rig.Gone(strange);
    rig.CheckSuspended(Reason::kAdmin);
  }
  SECTION("and let go, while the conflict lasts") {
    CHECK(rig.engine->AdminResume(rig.id) == Reason::kNone);
    rig.CheckSuspended(Reason::kConflictSa);
    rig.Crash();
    rig.Gone(strange);
    rig.CheckBack();
  }
}

TEST_CASE("a suspended latch whose program closes the socket is reaped, and leaves nothing") {
  OneLatch rig(policy::OnBreak::kSuspend);
  const std::vector<Sa> strange = rig.Strange();
  rig.CloseSocket(rig.fd);
  rig.engine->Tick(true);
  CHECK(rig.latch().state == State::kBroken);  // to be seen for a while
  SECTION("the conflict goes meanwhile") {
    rig.Gone(strange);
    CHECK(rig.latch().state == State::kBroken);
  }
  rig.kernel.now += 60'000;
  rig.engine->Tick(true);
  CHECK(rig.StateOf(rig.id) == State::kClosed);
  rig.Pass(Options{}.linger_ms);
  CHECK(rig.kernel.guards.size() == 2);
  CHECK(rig.observer.journal.size() == 2);
}

TEST_CASE("a socket that cannot be blocked is aborted, and that is its end") {
  OneLatch rig(policy::OnBreak::kSuspend);
  rig.kernel.fail_after = 1;
  const std::vector<Sa> strange = rig.Strange();
  CHECK(rig.latch().state == State::kBroken);
  CHECK(rig.SocketOf(rig.fd).aborted);
  CHECK(rig.told() == 1);
  // What is aborted must never read as an orderly end: it stays broken.
  rig.Gone(strange);
  rig.Pass(500);
  CHECK(rig.latch().state == State::kBroken);
  CHECK(rig.engine->AdminResume(rig.id) == Reason::kBadRequest);
}

TEST_CASE("a suspended latch is taken over by the next broker") {
  OneLatch rig(policy::OnBreak::kSuspend);
  const std::vector<Sa> strange = rig.Strange();
  if (GENERATE(false, true)) rig.engine->Stop();
  rig.Crash();
  rig.CheckSuspended(Reason::kConflictSa);
  rig.Gone(strange);
  rig.CheckBack();
}

}  // namespace
}  // namespace latchkey::broker
