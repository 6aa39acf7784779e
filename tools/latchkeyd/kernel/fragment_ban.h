// Keeps fragments in clear out of tunnels, by rules of nf_tables.
//
// The kernel takes a packet out of its tunnel before it puts fragments together, and what comes of
// that counts as protected when its first fragment was. So the broker has a table of its own, whose
// chains (one a family, before any defragmentation) drop fragments between the addresses of its
// tunnel latches unless they came out of an SA of the latch's reqid. Nothing else is touched: of
// IPv4 fragments those of TCP alone; of IPv6 ones any, since only the first need say of what it is.
#ifndef TOOLS_LATCHKEYD_KERNEL_FRAGMENT_BAN_H_
#define TOOLS_LATCHKEYD_KERNEL_FRAGMENT_BAN_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

class FragmentBans {
 public:
  // Nothing happens before the first Set(). `owned`: the table goes with this object, and nobody
  // else may change it; else it stays until it is set to nothing.
  FragmentBans(std::string table, bool owned) : table_(std::move(table)), owned_(owned) {}

  // Makes these the bans that hold, all at once or, with an error, none of it. kUnsupported where
  // the kernel lacks nf_tables or what the rules need of it.
  Result<void> Set(const std::vector<FragmentBan>& bans);

  // False when somebody took away what Set() made.
  bool Stand();

 private:
  Result<int> Socket();

  const std::string table_;
  const bool owned_;
  UniqueFd socket_;
  std::map<uint8_t, size_t> rules_;  // by nf_tables' family: how many there must be
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_FRAGMENT_BAN_H_
