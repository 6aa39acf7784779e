// Takes over what the journal says a broker before us had: its sessions, and its latches bound to
// their policies again.
#ifndef TOOLS_LATCHKEYD_SERVER_TAKEOVER_H_
#define TOOLS_LATCHKEYD_SERVER_TAKEOVER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "tools/latchkeyd/latch/legacy.h"
#include "tools/latchkeyd/server/journal.h"
#include "tools/latchkeyd/server/session.h"

namespace latchkey::broker {

// Restores the sessions of `old` into `sessions` (idle since `now`, in milliseconds), removes page
// files that belong to none, and returns what is for Engine::Start(). A latch whose session or
// rule cannot be had back is watched all the same, under a policy that allows nothing new. `warn`
// hears of each of those, and once of lines that cannot be read.
Legacy TakeOver(const JournalState& old, SessionTable& sessions, int64_t now,
                const std::function<void(const std::string&)>& warn);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_TAKEOVER_H_
