// The rules of nf_tables by which fragments in clear are kept out of tunnels, as the kernel is
// asked for them (fragment_ban.h says why). Pure functions.
#ifndef TOOLS_LATCHKEYD_KERNEL_FRAGMENT_RULES_H_
#define TOOLS_LATCHKEYD_KERNEL_FRAGMENT_RULES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

// Requests one behind the other, numbered 1, 2, …: all of them are done, or none.
struct FragmentBatch {
  std::vector<uint8_t> octets;
  uint32_t acknowledged = 0;  // the number of the request whose acknowledgement says "all done"
};

// Returns what makes `bans` all that the tables of this name (one a family) hold; without bans
// there is none. `owned`: they go with the socket that made them, and nobody else may change them.
FragmentBatch BuildFragmentBans(const std::string& table, bool owned,
                                const std::vector<FragmentBan>& bans);

// Returns nf_tables' number of a ban's family, and how many rules a family's chain has.
uint8_t FamilyOf(const FragmentBan& ban);
size_t CountFragmentRules(uint8_t family, const std::vector<FragmentBan>& bans);

// Returns the request for what the kernel says of a family's chain.
std::vector<uint8_t> BuildFragmentChainQuery(const std::string& table, uint8_t family);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_FRAGMENT_RULES_H_
