// net.core.xfrm_larval_drop of this network namespace: whether a packet whose SPD entry has no SA
// yet is lost (1, the kernel's default) or held back until there is one (0).
//
// It is switched only while a non-blocking connect waits for its keys, or a listener's answer for
// the name of its peer's SA, and given back as it was.
// Whoever else sends meanwhile where an SA is being negotiated has its packets kept rather than
// lost. Before it is switched a mark is made, an empty file in the broker's run directory: of a
// broker that was killed meanwhile the next one gives back what it had switched.
#ifndef TOOLS_LATCHKEYD_KERNEL_LARVAL_HOLD_H_
#define TOOLS_LATCHKEYD_KERNEL_LARVAL_HOLD_H_

#include <string>

#include "tools/unique_fd.h"

namespace latchkey::broker {

class LarvalHold {
 public:
  // Opens the file for later (privileges may go). Where it cannot be opened, for reading and for
  // writing, nothing is ever switched. `mark`: where the mark is made; empty: nowhere.
  explicit LarvalHold(std::string mark = {},
                      const std::string& path = "/proc/sys/net/core/xfrm_larval_drop");
  ~LarvalHold() { Set(false); }
  LarvalHold(const LarvalHold&) = delete;
  LarvalHold& operator=(const LarvalHold&) = delete;

  // On: packets are held back from now on. Off: as it was before. True when it is so now.
  bool Set(bool on);

  // Why nothing is ever switched; else empty.
  const std::string& Complaint() const { return complaint_; }

 private:
  bool Mark() const;
  void Unmark() const;

  const std::string mark_;
  UniqueFd fd_;
  std::string complaint_;
  bool switched_ = false;  // by us, from 1
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_LARVAL_HOLD_H_
