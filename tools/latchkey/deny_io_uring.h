// Takes io_uring, whose requests no preload sees, away from the program and all that it starts.
#ifndef TOOLS_LATCHKEY_DENY_IO_URING_H_
#define TOOLS_LATCHKEY_DENY_IO_URING_H_

#include "policy/model/error.h"

namespace latchkey::tool {

// From now on the kernel answers io_uring_setup, io_uring_enter and io_uring_register of this
// thread, and of every program that it becomes or starts, with ENOSYS, by whichever of the
// machine's ABIs they are called (seccomp(2)). Without CAP_SYS_ADMIN that takes no_new_privs:
// set-id programs then gain nothing.
Result<void> DenyIoUring();

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DENY_IO_URING_H_
