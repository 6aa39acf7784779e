// An SA, and who was known to be behind it: what a broker that comes after may go by while its key
// manager does not know, or not yet. It holds for the very SA alone: address, SPI and protocol,
// but reqid, selector, algorithms, key length and the second it was made in as well.
#ifndef TOOLS_LATCHKEYD_LATCH_VOUCHER_H_
#define TOOLS_LATCHKEYD_LATCH_VOUCHER_H_

#include <vector>

#include "policy/model/flow.h"
#include "policy/model/latch.h"
#include "tools/latchkeyd/latch/sa.h"

namespace latchkey::broker {

struct Voucher {
  Sa sa;
  Identity identity;
  std::vector<Selector> traffic = {};  // what it is for, as the key manager said; empty: not said

  bool operator==(const Voucher&) const = default;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_VOUCHER_H_
