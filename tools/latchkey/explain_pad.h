// Who may be behind a flow's SAs by the PAD, where the SAs themselves cannot be seen.
#ifndef TOOLS_LATCHKEY_EXPLAIN_PAD_H_
#define TOOLS_LATCHKEY_EXPLAIN_PAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "policy/decide.h"
#include "policy/model/flow.h"
#include "policy/pad.h"

namespace latchkey::tool {

struct PadName {
  uint32_t reqid = 0;   // 0: of one SPI
  uint32_t spi = 0;     // 0: of a reqid
  std::string peer_id;  // empty: entries disagree, so nobody
  bool fits = false;    // the demand takes this peer

  bool operator==(const PadName&) const = default;
};

// Returns the entries that can be about an SA of `flow`: of the peer's address (in tunnel mode the
// other end may have any), and of the reqid that is asked for.
std::vector<PadName> NamesByPad(const policy::Pad& pad, const Flow& flow,
                                const policy::Demand& demand);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_EXPLAIN_PAD_H_
