// Probes of UDP sockets.
#ifndef SHIM_TESTING_PROBE_DATAGRAMS_H_
#define SHIM_TESTING_PROBE_DATAGRAMS_H_

namespace latchkey::testing {

// Every way to send without a connection, then a connection and a send on it.
void ProbeUdpSends();
// Connects, connects anew, disconnects.
void ProbeUdpAgain();
// Sends more than the kernel takes at once, where nothing is mapped behind what it takes.
void ProbeUdpMany();
// Connects, and connects anew by another number of it, or after a child closed it.
void ProbeUdpCopied(int (*copy)(int fd));
int ByDup(int fd);
int ByFcntl(int fd);
int AfterVfork(int fd);
// Connects, then receives and sends.
void ProbeUdpTalks();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_DATAGRAMS_H_
