// The two capabilities with which a program could undo its own latch.
#ifndef TOOLS_LATCHKEY_CAPABILITIES_H_
#define TOOLS_LATCHKEY_CAPABILITIES_H_

#include <string>

#include "policy/model/error.h"

namespace latchkey::tool {

// True when CAP_NET_ADMIN is in the effective set: a private broker can be started.
bool HasNetAdmin();

// Takes CAP_NET_ADMIN and CAP_NET_RAW out of the bounding, ambient, inheritable, permitted and
// effective sets of this process, for good (capabilities(7)). Fails when the process, or the root
// user's program it goes on to exec, would keep or regain one; succeeds with nothing to do where
// neither is in reach.
Result<void> DropNetworkCapabilities();

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_CAPABILITIES_H_
