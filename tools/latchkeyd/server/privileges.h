// Gives up what the broker does not need once it has started.
#ifndef TOOLS_LATCHKEYD_SERVER_PRIVILEGES_H_
#define TOOLS_LATCHKEYD_SERVER_PRIVILEGES_H_

#include "policy/model/error.h"

namespace latchkey::broker {

// True when CAP_NET_ADMIN is effective.
bool HasNetAdmin();

// Keeps CAP_NET_ADMIN (XFRM, socket policies), CAP_SYS_PTRACE (pidfd_getfd), CAP_DAC_READ_SEARCH
// (/proc/PID/fd of other users) and CAP_KILL (programs whose shim did not load); drops the rest,
// from the bounding set too, and sets no_new_privs. CAP_BPF goes too: the filter of datagrams is
// loaded by then, and the maps that are open stay writable.
Result<void> DropPrivileges();

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_PRIVILEGES_H_
