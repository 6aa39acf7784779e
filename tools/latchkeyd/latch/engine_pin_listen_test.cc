// What listeners and their children lean on together, as the reqids of a peer change.
#include <catch2/catch.hpp>
#include <vector>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

TEST_CASE("a listener and its children share an entry through a reauthentication") {
  Broker broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const int child = broker.Child(listener);
  const Answer answer = broker.Accept(child);
  REQUIRE(answer.verdict == Verdict::kLatched);
  broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
  CHECK(broker.StateOf(answer.latch) == State::kBroken);  // nobody's
  broker.CloseSocket(child);
  broker.kernel.RemoveSas(8);
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  SECTION("anew, with a listener that has seen no stranger") {
    broker.CloseSocket(listener);
    broker.kernel.now += 60'000;
    broker.engine->Tick(true);
    const int again = broker.Listener();
    REQUIRE(broker.Listen(again).verdict == Verdict::kLatched);
    const int next = broker.Child(again, "10.9.0.2", 40'001);
    const Answer second = broker.Accept(next);
    REQUIRE(second.verdict == Verdict::kLatched);
    broker.keys.Name(8, "bob");
    broker.Hear(broker.kernel.AddPair(8, "10.9.0.2"));
    broker.Gone(pair);
    CHECK(broker.LatchOf(second.latch).reqid == 8);
    CHECK(broker.kernel.HasGuard(FlowGuard(broker.LatchOf(second.latch), Options{}.guard_mark)));
    broker.CloseSocket(again);
    broker.CloseSocket(next);
    broker.kernel.now += 60'000;
    broker.engine->Tick(true);
    broker.Pass(Options{}.linger_ms);
    CHECK(broker.kernel.guards.size() == 2);
    CHECK(broker.observer.journal.size() == 2);
  }
}

TEST_CASE("a listener serves a peer under its new reqid, whatever a child's end left in the SPD") {
  Broker broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const int child = broker.Child(listener);
  const Answer answer = broker.Accept(child);
  REQUIRE(answer.verdict == Verdict::kLatched);
  Guard served = FlowGuard(broker.LatchOf(answer.latch), Options{}.guard_mark);
  const auto close = [&] {
    broker.CloseSocket(child);
    broker.engine->Tick(true);
  };
  SECTION("the child is gone, its entry lingers") {
    close();
    broker.Gone(pair);
    broker.Keyed(8, "bob", "10.9.0.2");
    served.reqid = 8;
    CHECK(broker.kernel.HasGuard(served));
  }
  SECTION("the child lives on under the old reqid, which its peer has still") {
    broker.Keyed(8, "bob", "10.9.0.2");
    CHECK(broker.kernel.HasGuard(served));
    close();
    CHECK(broker.kernel.HasGuard(served));
  }
  broker.Pass(Options{}.linger_ms);
  served.reqid = 8;
  CHECK(broker.kernel.HasGuard(served));
  CHECK(broker.observer.warnings == 0);
  broker.CloseSocket(listener);
  broker.kernel.now += 60'000;
  broker.engine->Tick(true);
  CHECK(broker.kernel.guards.size() == 2);
}

}  // namespace
}  // namespace latchkey::broker
