// The SPD as `list --spd` shows it, with whose each entry is.
#ifndef TOOLS_LATCHKEY_SPD_TABLE_H_
#define TOOLS_LATCHKEY_SPD_TABLE_H_

#include <string>
#include <vector>

#include "policy/model/latch.h"
#include "tools/latchkeyd/latch/records.h"

namespace latchkey::tool {

// Return the whole text. `latches`: what per-socket policies there are, of which the SPD knows
// nothing: each latch that goes in clear or is protected has one.
std::string SpdTable(const std::vector<broker::OwnedEntry>& spd, const std::vector<Latch>& latches);
std::string SpdJson(const std::vector<broker::OwnedEntry>& spd, const std::vector<Latch>& latches);

// Returns one entry in words: "out priority 3 10.0.0.0/8 -> any tcp port 23: esp transport reqid
// 7".
std::string SpdText(const SpdEntry& entry);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_SPD_TABLE_H_
