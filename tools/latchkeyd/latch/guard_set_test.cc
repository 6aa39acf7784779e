#include "tools/latchkeyd/latch/guard_set.h"

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/fake_kernel.h"
#include "tools/latchkeyd/latch/fake_observer.h"

namespace latchkey::broker {
namespace {

Guard Make(uint16_t port, Guard::Action action = Guard::Action::kEsp) {
  Guard guard;
  guard.action = action;
  guard.reqid = action == Guard::Action::kEsp ? 7 : 0;
  guard.mark = 0x80000000;
  guard.selector.family = Family::kV4;
  guard.selector.source = Prefix{Address::AnyOf(Family::kV4), 0};
  guard.selector.destination = Prefix{Address::AnyOf(Family::kV4), 0};
  guard.selector.source_port = port;
  guard.selector.source_mask = 0xffff;
  return guard;
}

TEST_CASE("the first use adds, the last one takes away, the journal knows before the kernel") {
  FakeKernel kernel;
  FakeObserver observer;
  GuardSet guards(kernel, observer);
  REQUIRE(guards.Hold(Make(80)));
  REQUIRE(guards.Hold(Make(80)));
  CHECK(kernel.guards.size() == 1);
  CHECK(observer.journal.contains(Make(80)));
  guards.Drop(Make(80));
  CHECK(kernel.guards.size() == 1);
  guards.Drop(Make(80));
  CHECK(kernel.guards.empty());
  CHECK(observer.journal.empty());
  CHECK(guards.size() == 0);
}

TEST_CASE("an equal selector of somebody else's is an error, unless it may be shared") {
  FakeKernel kernel;
  FakeObserver observer;
  kernel.guards.push_back(Make(80, Guard::Action::kAllow));
  GuardSet guards(kernel, observer);
  CHECK(guards.Hold(Make(80)).error().reason == Reason::kConflictSpd);
  CHECK(guards.size() == 0);
  CHECK(observer.journal.empty());
  CHECK(guards.Hold(Make(80), /*shared=*/true));
}

TEST_CASE("entries whose marks differ in what is not set are two") {
  FakeKernel kernel;
  FakeObserver observer;
  GuardSet guards(kernel, observer);
  Guard strict = Make(80);
  strict.unset = 0x00ff0000;
  REQUIRE(guards.Hold(Make(80)));
  REQUIRE(guards.Hold(strict));
  CHECK(kernel.guards.size() == 2);
  const std::vector<SpdEntry> spd = *kernel.DumpSpd();
  CHECK(Shows(spd[1], strict));
  CHECK_FALSE(Shows(spd[0], strict));
  CHECK(guards.Owns(spd[1]));
  Guard other = strict;
  other.reqid = 9;
  CHECK(guards.InPlaceOf(other) == strict);
  guards.Drop(strict);
  CHECK(kernel.guards == std::vector<Guard>{Make(80)});
  CHECK(guards.InPlaceOf(other) == std::nullopt);
}

TEST_CASE("what was inherited and is not needed is swept away; what is needed stays in place") {
  FakeKernel kernel;
  FakeObserver observer;
  kernel.guards = {Make(80), Make(81)};
  GuardSet guards(kernel, observer);
  guards.Inherit(Make(80));
  guards.Inherit(Make(81));
  guards.Inherit(Make(82));  // was in the journal, never came into the kernel
  REQUIRE(guards.Hold(Make(80)));
  guards.Sweep();
  CHECK(kernel.guards == std::vector<Guard>{Make(80)});
}

TEST_CASE("what a flush took away comes back; what was changed is taken back") {
  FakeKernel kernel;
  FakeObserver observer;
  GuardSet guards(kernel, observer);
  REQUIRE(guards.Hold(Make(80)));
  REQUIRE(guards.Hold(Make(81)));
  CHECK(guards.Reassert(*kernel.DumpSpd()).size() == 0);
  kernel.guards.clear();
  CHECK(guards.Reassert(*kernel.DumpSpd()).size() == 2);
  CHECK(kernel.guards.size() == 2);
  kernel.guards[0].action = Guard::Action::kAllow;  // an update of equal selector and mark
  CHECK(guards.Reassert(*kernel.DumpSpd()).size() == 1);
  CHECK(kernel.HasGuard(Make(80)));
  CHECK(kernel.HasGuard(Make(81)));
  CHECK(kernel.guards.size() == 2);
}

TEST_CASE("an entry of a tunnel that changes its reqid has its ban changed with it") {
  FakeKernel kernel;
  FakeObserver observer;
  GuardSet set(kernel, observer);
  Guard from = Make(80);
  from.mode = Mode::kTunnel;
  Guard to = from;
  to.reqid = 9;
  REQUIRE(set.Hold(from));
  REQUIRE(kernel.bans.size() == 1);
  SECTION("renewed") {
    CHECK(set.Renew(from, to));
    REQUIRE(kernel.bans.size() == 1);
    CHECK(kernel.bans[0].reqid == 9);
    set.Drop(to);
    CHECK(kernel.bans.empty());
  }
  SECTION("the kernel refuses") {
    kernel.fail_after = 1;
    CHECK_FALSE(set.Renew(from, to));
    REQUIRE(kernel.bans.size() == 1);
    CHECK(kernel.bans[0].reqid == 7);
  }
}

}  // namespace
}  // namespace latchkey::broker
