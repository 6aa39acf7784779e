// LARVAL latches beside others to the same peer.
#include "tools/latchkeyd/latch/engine_larval_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

TEST_CASE("two LARVAL latches to one peer and port share what keeps them back") {
  Larval broker;
  const int one = broker.Socket(), two = broker.Socket();
  const uint64_t first = broker.Start(one), second = broker.Start(two);
  CHECK(broker.kernel.guards.size() == kStanding + 1);
  CHECK(broker.keys.waiting.size() == 1);
  SECTION("both get their SA") {
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.LatchOf(first).state == State::kEstablished);
    CHECK(broker.LatchOf(second).state == State::kEstablished);
  }
  SECTION("one is closed, the other gets its SA") {
    broker.CloseSocket(one);
    broker.engine->Tick(true);
    CHECK(broker.kernel.HasGuard(broker.Held()));
    CHECK(broker.kernel.holding);
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.LatchOf(second).state == State::kEstablished);
  }
  SECTION("only one may have the SA that comes") {
    auto strict = std::make_shared<policy::Policy>(*broker.client.policy);
    strict->rules[0].peer.ids = {"carol"};
    broker.client.policy = strict;
    const int three = broker.Socket();
    const uint64_t third = broker.Start(three);
    broker.keys.by_reqid[7] = Identified::Pending();
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    broker.CloseSocket(three);  // out of reach while the others are served
    broker.keys.Name(7, "bob");
    broker.KeysChanged();
    CHECK(broker.LatchOf(second).state == State::kEstablished);
    CHECK(broker.LatchOf(third).state == State::kLarval);
    CHECK(broker.kernel.HasGuard(broker.Held()));  // the third's SYN goes nowhere
    broker.SocketOf(three).held = true;
    broker.KeysChanged();
    CHECK(broker.LatchOf(third).reason == Reason::kPeerMismatch);
    broker.CloseSocket(three);
  }
  SECTION("both fail") {
    broker.Negotiated("10.9.0.2", Reason::kAuthFailed);
    CHECK(broker.LatchOf(first).reason == Reason::kAuthFailed);
    CHECK(broker.LatchOf(second).reason == Reason::kAuthFailed);
  }
  SECTION("the kernel does not change the entry for the first, but for the second") {
    broker.kernel.fail_after = 3;  // mark, policy, entry
    broker.Hear(broker.kernel.AddPair(7, "10.9.0.2"));
    CHECK(broker.LatchOf(first).state == State::kEstablished);
    CHECK(broker.LatchOf(second).state == State::kEstablished);
  }
  broker.CloseSocket(one);
  broker.CloseSocket(two);
  broker.kernel.now += 60'000;
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  CHECK(broker.engine->database().entries().empty());
  broker.CheckClean();
}

TEST_CASE("LARVAL beside an established latch to the same peer and port") {
  Larval broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int old = broker.Socket();
  const Answer established = broker.Connect(old);
  REQUIRE(established.verdict == Verdict::kLatched);
  broker.Gone(pair);
  const int fd = broker.Socket();
  const uint64_t id = broker.Start(fd);
  const Guard lasting = FlowGuard(broker.LatchOf(established.latch), Options{}.guard_mark);
  CHECK(broker.kernel.HasGuard(lasting));
  CHECK(broker.kernel.HasGuard(broker.Held()));
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(id).state == State::kEstablished);
  CHECK(broker.LatchOf(established.latch).state == State::kEstablished);
  broker.Pass(1'000);
  CHECK(broker.kernel.guards.size() == kStanding + 1);
  CHECK(broker.kernel.HasGuard(lasting));
}

TEST_CASE("LARVAL while the entry that let another's SYN go is still there") {
  Larval broker;
  const int one = broker.Socket();
  const uint64_t first = broker.Start(one);
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(first).state == State::kEstablished);
  broker.Gone(pair);
  broker.kernel.now += 10;
  const int two = broker.Socket();
  const uint64_t second = broker.Start(two);  // would be refused: an entry of equal selector
  CHECK(broker.kernel.HasGuard(broker.Held()));
  broker.Pass(1'000);
  CHECK(broker.kernel.HasGuard(broker.Held()));
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.LatchOf(second).state == State::kEstablished);
  broker.CloseSocket(one);
  broker.CloseSocket(two);
  broker.engine->Tick(true);
  broker.Pass(Options{}.linger_ms);
  broker.CheckClean();
}

TEST_CASE("LARVAL while the entry of a closed flow to the same server lingers") {
  Larval broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int old = broker.Socket();
  const Answer closed = broker.Connect(old);
  REQUIRE(closed.verdict == Verdict::kLatched);
  const Guard lingers = FlowGuard(broker.LatchOf(closed.latch), Options{}.guard_mark);
  broker.CloseSocket(old);
  broker.engine->Tick(true);
  REQUIRE(broker.kernel.HasGuard(lingers));
  broker.Gone(pair);
  const uint64_t id = broker.Start(broker.Socket());
  broker.kernel.renewed.clear();
  broker.Keyed(7, "bob", "10.9.0.2");
  REQUIRE(broker.LatchOf(id).state == State::kEstablished);
  // The kernel looks among entries of whole addresses first: that one kept the SYN back.
  CHECK(std::ranges::count(broker.kernel.renewed, lingers) == 1);
}

}  // namespace
}  // namespace latchkey::broker
