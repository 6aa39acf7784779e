// Probes of the rarer circumstances that a program brings about for itself.
#ifndef SHIM_TESTING_PROBE_ODD_H_
#define SHIM_TESTING_PROBE_ODD_H_

namespace latchkey::testing {

// Has a seccomp filter deny getsockopt(), then prints what sockets still get.
void ProbeSandbox();

// Has a seccomp filter make children without names, then accepts on a Unix socket.
void ProbeNameless();

// Sends a datagram in parts, of which the kernel refuses the last, and then another one.
void ProbeParts(bool cork);

// Connects without blocking where the kernel refuses at once: nowhere, and with EAGAIN.
void ProbeConnectFails();

// Cancels a thread that waits in recv().
void ProbeCancel();

// Cancels a thread that waits in accept(); then accepts.
void ProbeCancelAccept();

// Cancels the process's only thread, which then reads.
void ProbeCancelSelf();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_ODD_H_
