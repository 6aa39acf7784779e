// connect() on a TCP socket that the broker has to decide about, with all the time that takes.
#ifndef SHIM_LATCHED_CONNECT_H_
#define SHIM_LATCHED_CONNECT_H_

#include <sys/socket.h>

#include "shim/wire/messages.h"

namespace latchkey::shim {

// The connect() behind ours.
int RealConnect(int fd, const sockaddr* address, socklen_t length);

// Asks the broker, waits while it negotiates as the kernel would wait for the peer, and connects.
// As connect(): 0, or -1 and errno. `remote` is what `address` says.
int LatchedConnect(int fd, const sockaddr* address, socklen_t length, const wire::Endpoint& remote);

}  // namespace latchkey::shim

#endif  // SHIM_LATCHED_CONNECT_H_
