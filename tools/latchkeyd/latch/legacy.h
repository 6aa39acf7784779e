// What a broker before us left behind, as far as its journal can be read.
#ifndef TOOLS_LATCHKEYD_LATCH_LEGACY_H_
#define TOOLS_LATCHKEYD_LATCH_LEGACY_H_

#include <cstdint>
#include <set>
#include <vector>

#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/voucher.h"

namespace latchkey::broker {

struct Legacy {
  std::vector<Guard> guards = {};
  std::vector<Entry> latches = {};  // with their policies
  std::vector<Voucher> vouchers = {};
  uint64_t last_id = 0;  // the greatest that a latch ever had

  // Something is missing: sockets and SPD entries that bear the guard bit, and of which nothing is
  // known, are cut off and taken away. Not where another broker may know them.
  bool incomplete = false;
  std::set<uint64_t> suspects = {};  // of the latches: what became of them cannot be read
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_LEGACY_H_
