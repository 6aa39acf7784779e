// What a child in tunnel mode is for: the traffic selectors that both peers have agreed on, as
// selectors of the kernel's kind. Pure.
//
// Limits: nothing at all where one of them cannot be said that way (a range of addresses that is no
// prefix, a range of ports), is not read, or is none yet: half of what a child may carry would be
// the wrong half.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_TRAFFIC_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_TRAFFIC_H_

#include <vector>

#include "policy/model/flow.h"
#include "tools/latchkeyd/keymgr/vici/sas.h"

namespace latchkey::broker::vici {

// Of what goes out: from our side to the peer's. Each of our selectors with each of the peer's, as
// charon makes its SPD entries. Empty for a child in another mode.
std::vector<Selector> Traffic(const ChildSa& child);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_TRAFFIC_H_
