// net.core.xfrm_larval_drop of this network namespace: whether a packet whose SPD entry has no SA
// yet is lost (1, the kernel's default) or held back until there is one (0).
//
// It is switched only while a non-blocking connect waits for its keys, or a listener's answer for
// the name of its peer's SA, and given back as it was.
// Whoever else sends meanwhile where an SA is being negotiated has its packets kept rather than
// lost. A broker that is killed leaves it at 0, and the next one does not know: that is said where
// it counts.
#ifndef TOOLS_LATCHKEYD_KERNEL_LARVAL_HOLD_H_
#define TOOLS_LATCHKEYD_KERNEL_LARVAL_HOLD_H_

#include <string>

#include "tools/unique_fd.h"

namespace latchkey::broker {

class LarvalHold {
 public:
  // Opens the file for later (privileges may go). Where it cannot be opened nothing is ever
  // switched.
  explicit LarvalHold(const std::string& path = "/proc/sys/net/core/xfrm_larval_drop");
  ~LarvalHold() { Set(false); }
  LarvalHold(const LarvalHold&) = delete;
  LarvalHold& operator=(const LarvalHold&) = delete;

  // On: packets are held back from now on. Off: as it was before. True when it is so now.
  bool Set(bool on);

 private:
  UniqueFd fd_;
  bool switched_ = false;  // by us, from 1
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_LARVAL_HOLD_H_
