// Which descriptors may be of sockets that the broker knows something of. A hint, so that what no
// rule protects costs no system call: what a socket is, SO_MARK and the broker say.
//
// Limits: not told of what came by another road (inherited, passed, dup()). Of a UDP socket that is
// made good where AnyDatagrams(); else such a socket, under an old latch, is held by the kernel to
// what it was latched to, and its connect() to elsewhere fails.
// Numbers from kPastLimit on always may. Async-signal-safe, no lock, errno untouched.
#ifndef SHIM_PAST_H_
#define SHIM_PAST_H_

#include "shim/fd_bits.h"

namespace latchkey::shim {

inline constexpr int kPastLimit = kFdLimit;

// Notes that the broker was asked about the socket at `fd`, or took a request for it.
void NotePast(int fd);
// Forgets what was noted: the number is about to be another's. Not in a child of vfork(), whose
// parent goes on with what that closes.
void ForgetPast(int fd);
// True when something was noted of `fd`, or may have been.
bool MayHavePast(int fd);

// Notes, for good, that a UDP socket of this process came under a latch.
void NoteDatagrams();
// True when that was noted.
bool AnyDatagrams();

}  // namespace latchkey::shim

#endif  // SHIM_PAST_H_
