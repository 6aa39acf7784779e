// The options at level SOL_LATCHKEY (latchkey.h), for TCP sockets. Async-signal-safe, no
// allocation, errno untouched.
#ifndef SHIM_OPTIONS_H_
#define SHIM_OPTIONS_H_

#include <sys/socket.h>

namespace latchkey::shim {

// True for a call that is ours to answer: of this level, on a TCP socket. What is no TCP socket, or
// not known to be one, is the kernel's.
bool IsOurOption(int fd, int level);

// Both return 0 or the errno.
int GetOption(int fd, int option, void* value, socklen_t* length);
int SetOption(int fd, int option, const void* value, socklen_t length);

}  // namespace latchkey::shim

#endif  // SHIM_OPTIONS_H_
