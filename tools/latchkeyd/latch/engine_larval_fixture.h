// A broker whose key manager negotiates, and connects that have gone LARVAL.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_LARVAL_FIXTURE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_LARVAL_FIXTURE_H_

#include <algorithm>
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

inline constexpr uint32_t kPlaceholder = 0xffff'fff0;
inline constexpr size_t kStanding = 2;  // the standing guards, one a family

struct Larval : Broker {
  explicit Larval(std::vector<policy::Rule> rules = {ProtectRule({"bob"})})
      : Broker(MakePolicy(std::move(rules))) {
    keys.negotiates = true;
    keys.Name(7, "bob");
  }

  // A connect that has gone LARVAL; the program is in SYN_SENT.
  uint64_t Start(int fd, uint16_t port = 443) {
    const Answer wait = Begin(fd, /*nonblocking=*/true, "10.9.0.2", port);
    REQUIRE(wait.verdict == wire::Verdict::kWait);
    Pass(Options{}.inline_ms);
    const std::optional<Answer> answer = AnswerTo(wait.ticket);
    REQUIRE(answer);
    REQUIRE(answer->verdict == wire::Verdict::kLarval);
    SocketFacts& facts = SocketOf(fd).facts;
    facts.tcp_state = 2;
    facts.remote = At("10.9.0.2", port);
    facts.local = At("10.9.0.1", static_cast<uint16_t>(50'000 + fd));
    return answer->latch;
  }

  Guard Held(uint16_t port = 443) const {
    return LarvalGuard(At("10.9.0.2", port), kProtocolTcp, kPlaceholder, Options{}.guard_mark);
  }

  // Nothing of any LARVAL latch is left, in the kernel, the journal or the key manager.
  void CheckClean() {
    CHECK(kernel.guards.size() == kStanding);
    CHECK(observer.journal.size() == kStanding);
    CHECK_FALSE(kernel.holding);
    CHECK(kernel.borrowed == 0);
    CHECK(keys.waiting.empty());
    CHECK_FALSE(engine->NextDue());
  }
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_LARVAL_FIXTURE_H_
