// Ending a connection so that the program's calls fail, and finding out at start what works here.
//
// SOCK_DESTROY gives ECONNABORTED, connect(AF_UNSPEC) gives ECONNRESET (KERNEL.md 6). shutdown() is
// no means: the program would take it for a clean end of file.
#ifndef TOOLS_LATCHKEYD_KERNEL_ABORT_PROBE_H_
#define TOOLS_LATCHKEYD_KERNEL_ABORT_PROBE_H_

#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/inet_diag.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

struct AbortMeans {
  bool destroy = false;     // SOCK_DESTROY by cookie: needs no descriptor
  bool disconnect = false;  // connect(AF_UNSPEC) through a descriptor
};

// Tries both on TCP sockets of the caller's own: a connected pair on loopback, or a listener where
// loopback is down. An error when neither works: a latch that cannot be broken is not one.
Result<AbortMeans> ProbeAbortMeans(InetDiag& diag);

// Disconnects the TCP socket behind `fd`: RST, ECONNRESET, and a listener stops to listen.
Result<void> Disconnect(int fd);

// Implements KernelPort::Abort() with the means there are. A UDP socket is destroyed (its calls
// fail once, it stays blocked), or shut down where the kernel has no SOCK_DESTROY.
Result<void> AbortSocket(InetDiag& diag, const AbortMeans& means, const SocketHint& hint, int fd,
                         const Flow& flow);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_ABORT_PROBE_H_
