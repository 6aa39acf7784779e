// Of which sockets a part of a datagram waits in the kernel for the rest (MSG_MORE, UDP_CORK): when
// sending that fails, the part is lost, and the rest must not be sent again as if it were all.
//
// A hint: one part that was sent past us, or by another number of the socket, is not known of.
// Async-signal-safe, no lock, errno untouched. Without such a program each send costs one load.
#ifndef SHIM_PARTS_H_
#define SHIM_PARTS_H_

#include <sys/socket.h>

#include <atomic>

namespace latchkey::shim {

extern std::atomic<bool> any_parts;

// Notes a send on `fd` that was made; `more`: the rest is to come.
void NotePart(int fd, bool more);
inline void NoteSent(int fd, int flags) {
  const bool more = (flags & MSG_MORE) != 0;
  if (more || any_parts.load(std::memory_order_relaxed)) [[unlikely]]
    NotePart(fd, more);
}

// Notes that UDP_CORK was set, or cleared.
void NoteCork(int fd, bool on);

// True when a part waits, or did until now; it is forgotten.
bool TakePart(int fd);

// Forgets all about `fd`, which the kernel has just given out.
void FreshParts(int fd);

}  // namespace latchkey::shim

#endif  // SHIM_PARTS_H_
