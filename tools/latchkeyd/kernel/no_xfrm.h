// Past which devices the kernel does not ask the SPD.
//
// disable_xfrm of a device has IPv4 packets leave by it without a look at the SPD, disable_policy
// has them (IPv4 and IPv6) come in so. A socket's own policy is asked all the same. The kernel
// tells nobody when one of these settings changes (RTM_NEWNETCONF is for others).
#ifndef TOOLS_LATCHKEYD_KERNEL_NO_XFRM_H_
#define TOOLS_LATCHKEYD_KERNEL_NO_XFRM_H_

#include <string>

#include "policy/model/error.h"
#include "tools/latchkeyd/latch/no_xfrm.h"

namespace latchkey::broker {

// Reads the settings of all devices but loopback, which has both set always. Some microseconds a
// device.
Result<NoXfrm> ReadNoXfrm(const std::string& settings = "/proc/sys/net");

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_NO_XFRM_H_
