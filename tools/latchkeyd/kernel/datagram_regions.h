// What the regions of one socket are in the kernel's maps: entries of addresses with a port
// ("exact") and entries of prefixes.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_REGIONS_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_REGIONS_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/datagram_layout.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

using ExactEntries = std::vector<std::pair<latchkey_exact_key, uint32_t>>;

struct RegionEntries {
  ExactEntries exact;  // in order, each key once
  std::vector<std::pair<latchkey_region_key, latchkey_region>> prefixes;
  bool keys_alone = false;  // what they say is not known
};

struct ExactChange {
  ExactEntries come;
  ExactEntries go;
};

// How the maps write a family and an address.
uint16_t FamilyOf(const Address& address);
void CopyTo(uint8_t (&to)[16], const Address& address);

// kBadRequest: a region of no place; ports left out where nothing passes, of one port, or that are
// no range. kLimit: more of them than kMostBut. Of several about one address and port the last one
// counts.
Result<RegionEntries> EntriesOf(uint64_t cookie, uint32_t generation,
                                const std::vector<DatagramRegion>& regions);

// What exact entries come and go from one to the other. Nothing where that is not all, or not
// known.
std::optional<ExactChange> ChangeOf(const RegionEntries& from, const RegionEntries& to);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_REGIONS_H_
