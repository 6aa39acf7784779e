#include "tools/latchkeyd/server/takeover.h"

#include <algorithm>
#include <memory>

#include "policy/request.h"

namespace latchkey::broker {

Legacy TakeOver(const JournalState& old, SessionTable& sessions, int64_t now,
                const std::function<void(const std::string&)>& warn) {
  if (old.garbled > 0) {
    warn("error: the journal has " + std::to_string(old.garbled) +
         " garbled lines: what they spoke of is cut off where it can be found");
  }
  for (const auto& [id, record] : old.sessions) {
    Result<Session*> restored = sessions.Restore(record);
    if (restored) {
      (*restored)->idle_since = now;
    } else {
      warn("error: session " + std::to_string(id) +
           " is not restored: " + restored.error().ToString());
    }
  }
  sessions.RemoveStrays();

  policy::Policy nothing;
  nothing.otherwise = policy::Action::kDiscard;
  const auto orphaned = std::make_shared<const policy::Policy>(std::move(nothing));
  Legacy legacy;
  legacy.guards.assign(old.guards.begin(), old.guards.end());
  for (const auto& [key, voucher] : old.vouchers) legacy.vouchers.push_back(voucher);
  legacy.last_id = old.last_id;
  legacy.incomplete = old.garbled > 0;
  legacy.suspects = old.suspects;
  for (const auto& [id, from] : old.latches) {
    Entry entry = from;
    const Session* session = sessions.Find(entry.session);
    entry.policy = session != nullptr ? session->policy : orphaned;
    if (const auto held = old.held.find(id); held != old.held.end()) {
      entry.policy = policy::HeldTo(held->second, entry.policy);
    }
    const auto& rules = entry.policy->rules;
    const auto rule = std::ranges::find(rules, entry.latch.rule, &policy::Rule::name);
    if (rule != rules.end()) entry.rule = &*rule;
    if (session == nullptr) warn("error: latch " + std::to_string(id) + " has lost its session");
    legacy.latches.push_back(std::move(entry));
  }
  return legacy;
}

}  // namespace latchkey::broker
