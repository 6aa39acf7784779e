// Probes of connects that take time: the broker waits for keys, or lets a connection go on without.
#ifndef SHIM_TESTING_PROBE_WAIT_H_
#define SHIM_TESTING_PROBE_WAIT_H_

namespace latchkey::testing {

// Connects sockets made non-blocking in either way, and one that is not.
void ProbeNonblocking();

// Connects without blocking under edge-triggered epoll, counts how often it wakes for a while after
// a pause, and then tries every call on the socket.
void ProbeLarval();

// A handler without SA_RESTART runs during connect(): in time, and in the test's own time.
void ProbeInterrupted();
void ProbeInterruptedLate();

// Handlers with SA_RESTART run all the time; one without is installed and does not.
void ProbeRestarted();

// Connects with SO_SNDTIMEO; in the second, a handler with SA_RESTART runs meanwhile.
void ProbeSendTimeout();
void ProbeTimeoutRestarted();

// Twenty threads connect.
void ProbeWaitTogether();

// Cancels a thread that waits in connect(), which ends once the wait has.
void ProbeCancelConnect();

// Forks while a thread waits in connect(); the child connects, and outlives the wait.
void ProbeWaitFork();

// Puts a file in the place of every descriptor above the program's own while a thread waits.
void ProbeWaitDup();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_WAIT_H_
