// What the tests of suspended latches and of changes to the SPD share.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_SUSPEND_FIXTURE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_SUSPEND_FIXTURE_H_

#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

inline SpdEntry Spd(bool block, uint32_t reqid = 0) {
  SpdEntry entry;
  entry.dir = 1;
  entry.priority = 5;
  entry.block = entry.bare = block;
  if (!block) {
    entry.protocol = SaProtocol::kEsp;
    entry.mode = Mode::kTransport;
    entry.reqid = reqid;
  }
  return entry;
}

// A broker with one latch.
struct OneLatch : Broker {
  explicit OneLatch(policy::OnBreak on_break, Pin pin = Pin::kSpi)
      : Broker(MakePolicy({OneRule(on_break, pin)})) {
    pair = Keyed(7, "bob", "10.9.0.2");
    fd = Socket();
    const Answer answer = Connect(fd);
    REQUIRE(answer.verdict == wire::Verdict::kLatched);
    id = answer.latch;
    engine->Tick(true);
  }

  static policy::Rule OneRule(policy::OnBreak on_break, Pin pin) {
    policy::Rule rule = ProtectRule({"bob"});
    rule.on_break = on_break;
    rule.protection.pin = pin;
    return rule;
  }

  const Latch& latch() const { return LatchOf(id); }
  Guard guard() const { return FlowGuard(latch(), Options{}.guard_mark); }
  int told() { return observer.told[{id, State::kBroken}]; }
  std::vector<Sa> Strange(uint32_t reqid = 9, uint16_t bits = 256) {
    keys.Name(reqid, reqid == 8 ? "bob" : "mallory");
    const std::vector<Sa> made = kernel.AddPair(reqid, "10.9.0.2", bits);
    Hear(made);
    return made;
  }
  void UseSpd(std::vector<SpdEntry> spd) {
    kernel.spd = std::move(spd);
    engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  }
  void CheckSuspended(Reason reason) {
    CHECK(latch().state == State::kBroken);
    CHECK(latch().reason == reason);
    CHECK(SocketOf(fd).policy->kind == SocketPolicy::Kind::kBlock);
    CHECK_FALSE(SocketOf(fd).aborted);
    CHECK_FALSE(kernel.HasGuard(guard()));
    CHECK(kernel.borrowed == 0);
  }
  void CheckBack() {
    CHECK(latch().state == State::kEstablished);
    CHECK(latch().reason == Reason::kNone);
    CHECK(SocketOf(fd).policy->kind == SocketPolicy::Kind::kProtect);
    CHECK(SocketOf(fd).policy->reqid == latch().reqid);
    CHECK(kernel.HasGuard(guard()));
    CHECK(kernel.borrowed == 0);
  }

  std::vector<Sa> pair;  // outgoing first
  int fd = -1;
  uint64_t id = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_SUSPEND_FIXTURE_H_
