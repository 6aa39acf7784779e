// What the regions of one socket are in the kernel's maps: entries of addresses with a port
// ("exact") and entries of prefixes.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_REGIONS_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_REGIONS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/datagram_layout.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

struct RegionEntries {
  std::vector<std::pair<latchkey_exact_key, uint32_t>> exact;
  std::vector<std::pair<latchkey_region_key, latchkey_region>> prefixes;
};

// How the maps write a family and an address.
uint16_t FamilyOf(const Address& address);
void CopyTo(uint8_t (&to)[16], const Address& address);

// kBadRequest: a region of no place; ports left out where nothing passes, of one port, or that are
// no range. kLimit: more of them than kMostBut.
Result<RegionEntries> EntriesOf(uint64_t cookie, uint32_t generation,
                                const std::vector<DatagramRegion>& regions);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_REGIONS_H_
