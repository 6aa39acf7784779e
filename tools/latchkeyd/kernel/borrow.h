// Finds programs' sockets again: duplicates of them by pidfd_getfd(2), and who holds any at all.
//
// Needs CAP_SYS_PTRACE for processes of other users, and CAP_DAC_READ_SEARCH to list their
// descriptors under /proc. A descriptor that only another thread's unshared table holds is not
// found.
#ifndef TOOLS_LATCHKEYD_KERNEL_BORROW_H_
#define TOOLS_LATCHKEYD_KERNEL_BORROW_H_

#include <cstdint>
#include <unordered_set>

#include "policy/model/error.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// Returns a duplicate of the socket with the hint's cookie: from the hinted process and number,
// then from the hinted process, then from any (by inode). Whatever is fetched is proved by
// SO_COOKIE. Empty when nobody reachable holds it.
UniqueFd BorrowSocket(const SocketHint& hint);

// Returns the inodes of all sockets that a process other than the caller holds. An error when the
// caller lacks the capabilities to look into processes: a socket not seen would pass for closed. A
// process that stays shut even so (of an outer user namespace) is passed over: no socket of its
// could be latched, since none could be borrowed.
Result<std::unordered_set<uint64_t>> ListHeldSockets();

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_BORROW_H_
