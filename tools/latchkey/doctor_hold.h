// Whether the brokers of this network namespace can hold packets back while a program waits for its
// SA (tools/latchkeyd/kernel/larval_hold.h), as `latchkey doctor` sees it.
#ifndef TOOLS_LATCHKEY_DOCTOR_HOLD_H_
#define TOOLS_LATCHKEY_DOCTOR_HOLD_H_

#include <string>
#include <vector>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

struct HoldFacts {
  int pid = 0;         // of a latchkeyd
  bool holds = false;  // it has net.core.xfrm_larval_drop open
};

// Looks through the processes under `proc`, of which root alone can see all.
std::vector<HoldFacts> ReadHolds(const std::string& proc = "/proc");

// Nothing where there is no broker: that is said elsewhere.
Findings HoldFindings(const std::vector<HoldFacts>& brokers);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_HOLD_H_
