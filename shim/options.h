// The options at level SOL_LATCHKEY (latchkey.h), for TCP and UDP sockets. Async-signal-safe, no
// allocation, errno untouched.
#ifndef SHIM_OPTIONS_H_
#define SHIM_OPTIONS_H_

#include <sys/socket.h>

namespace latchkey::shim {

// True for a TCP or UDP socket. What is none, or is not known to be one, is the kernel's to answer
// about.
bool HasOurOptions(int fd);

// Answer a call of that level on such a socket, as getsockopt() and setsockopt() have it; both
// return 0 or the errno (latchkey(7)).
int GetOption(int fd, int option, void* value, socklen_t* length);
int SetOption(int fd, int option, const void* value, socklen_t length);

// Notes that the program of a socket with LATCHKEY_LATCHES wants, or does not want, SO_RCVMARK: the
// kernel's stays set. 0 or the errno; -1: it is the kernel's to set.
int SetMarks(int fd, const void* value, socklen_t length);

// Answers setsockopt(UDP_GRO) of a UDP socket under a latch: 0, and nothing is done, or the errno
// of a bad value. -1: it is the kernel's to set. What the kernel merges it checks as the first of
// it (gro_list_prepare in net/core/gro.c compares no SAs); a program cannot tell it from a kernel
// that finds nothing to merge.
int SetMerging(int fd, const void* value, socklen_t length);
// Takes it back from a socket that has come under a latch meanwhile.
void KeepApart(int fd);

}  // namespace latchkey::shim

#endif  // SHIM_OPTIONS_H_
