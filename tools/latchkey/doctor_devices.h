// What `latchkey doctor` finds about devices past which the kernel does not ask the SPD.
#ifndef TOOLS_LATCHKEY_DOCTOR_DEVICES_H_
#define TOOLS_LATCHKEY_DOCTOR_DEVICES_H_

#include "policy/model/error.h"
#include "tools/latchkey/finding.h"
#include "tools/latchkeyd/latch/no_xfrm.h"

namespace latchkey::tool {

Findings DeviceFindings(const Result<broker::NoXfrm>& devices);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_DEVICES_H_
