// What becomes of latches as the SPD changes.
#include <catch2/catch.hpp>
#include <vector>

#include "tools/latchkeyd/latch/engine_suspend_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

TEST_CASE("what an administrator asks in the SPD afterwards breaks what the application asked") {
  OneLatch rig(policy::OnBreak::kReset);
  SECTION("discard") {
    rig.UseSpd({Spd(/*block=*/true)});
    CHECK(rig.latch().reason == Reason::kConflictSpd);
    CHECK(rig.SocketOf(rig.fd).aborted);
    CHECK(rig.told() == 1);
  }
  SECTION("other protection") {
    SpdEntry tunnel = Spd(/*block=*/false);
    tunnel.mode = Mode::kTunnel;
    rig.UseSpd({tunnel});
    CHECK(rig.latch().reason == Reason::kConflictSpd);
  }
  SECTION("the same protection") {
    rig.UseSpd({Spd(/*block=*/false)});
    CHECK(rig.latch().state == State::kEstablished);
    rig.UseSpd({});
    CHECK(rig.latch().state == State::kEstablished);
  }
  SECTION("clear for somebody else, discard for nobody of ours") {
    SpdEntry other = Spd(/*block=*/true);
    other.selector.family = Family::kV4;
    other.selector.destination = Prefix::Parse("10.9.0.3/32").value();
    rig.UseSpd({other});
    CHECK(rig.latch().state == State::kEstablished);
  }
  SECTION("asked while no broker watched") {
    rig.kernel.spd = {Spd(/*block=*/true)};
    rig.Crash();
    CHECK(rig.latch().reason == Reason::kConflictSpd);
  }
  SECTION("what the application asked is lost: only a discard counts") {
    std::vector<Entry> latches;
    for (const auto& [id, entry] : rig.engine->database().entries()) {
      latches.push_back(entry);
      latches.back().rule = nullptr;
      latches.back().policy = MakePolicy({}, policy::Action::kDiscard);
    }
    rig.engine->Stop();
    rig.Restart({}, latches);
    CHECK(rig.latch().state == State::kEstablished);
    rig.UseSpd({Spd(/*block=*/false)});
    CHECK(rig.latch().state == State::kEstablished);
    rig.UseSpd({Spd(/*block=*/true)});
    CHECK(rig.latch().reason == Reason::kConflictSpd);
  }
}

TEST_CASE("what the system asked is kept as it was, whatever the SPD becomes") {
  Broker broker(MakePolicy({}));
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.kernel.spd = {Spd(/*block=*/false, 7)};
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  const Answer answer = broker.Connect(broker.Socket());
  REQUIRE(answer.verdict == Verdict::kLatched);
  REQUIRE(broker.LatchOf(answer.latch).implicit);
  broker.kernel.spd = {Spd(/*block=*/true)};
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
}

}  // namespace
}  // namespace latchkey::broker
