// The probe's parts about SOL_LATCHKEY.
#ifndef SHIM_TESTING_PROBE_OPTIONS_H_
#define SHIM_TESTING_PROBE_OPTIONS_H_

namespace latchkey::testing {

// Asks every option of a connected socket, by getsockopt() and by syscall().
void ProbeLatch();
// With buffers of every kind of size that is too small.
void ProbeLatchShort();
// With pointers and options that are none.
void ProbeLatchBad();
// What is neither a TCP nor a UDP socket.
void ProbeLatchOthers();
// Asks for protection, then connects.
void ProbeRequest();
// Requests that cannot be one.
void ProbeRequestBad();
// Connects, and listens, on sockets that bear a mark.
void ProbeMarked();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_OPTIONS_H_
