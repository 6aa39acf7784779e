// Answers that wait for a name. A peer's first SYN can come under its new SA before the key manager
// has told us whose that is. To refuse its answer by the standing BLOCK would cost the peer a whole
// retransmission; so the kernel keeps it back meanwhile, under an entry whose reqid no SA has, as
// it does for LARVAL connects. When the SA gets a name that may be answered, the entry gets its
// reqid, and what waits leaves (xfrm_policy_requeue); else the entry goes, and what waits with it.

#include <algorithm>

#include "tools/latchkeyd/latch/engine.h"

namespace latchkey::broker {

// True while a name is awaited that may let answers go, and not for longer than accept would wait.
bool Engine::AwaitsName(const std::vector<const KnownSa*>& sas) const {
  const int64_t now = kernel_.NowMs();
  return std::ranges::any_of(sas, [&](const KnownSa* known) {
    return known->who.pending() && now - known->pending_since < options_.identify_ms;
  });
}

// Holds an entry that keeps answers back. False where another stands in its place: a child's, which
// lets them go.
bool Engine::HoldBack(const Guard& guard) {
  if (larvals_.empty() && held_answers_.empty())
    kernel_.HoldPackets(true);  // before the first can come
  const bool held = guards_.Hold(guard).has_value();
  if (held) held_answers_.try_emplace(guard, kernel_.NowMs());
  EndHolds();
  return held;
}

// Puts an entry by which answers may leave in the place of one that keeps them back.
bool Engine::LetAnswersGo(const Guard& guard) {
  const auto it = std::ranges::find_if(
      held_answers_, [&guard](const auto& each) { return SamePlace(each.first, guard); });
  if (it == held_answers_.end() || !Requires(guard.action)) return false;
  const bool renewed = RenewForAll(Guard(it->first), guard);
  EndHolds();
  return renewed;
}

// Clears up after entries that keep nothing back any more.
void Engine::EndHolds() {
  std::erase_if(held_answers_, [this](const auto& each) {
    const Guard& guard = each.first;
    if (guards_.Has(guard)) return false;
    kernel_.DropLarval(guard.selector.source.base, guard.selector.destination.base,
                       SaProtocol::kEsp, guard.reqid, guard.mark);
    return true;
  });
  if (larvals_.empty() && held_answers_.empty()) kernel_.HoldPackets(false);
}

}  // namespace latchkey::broker
