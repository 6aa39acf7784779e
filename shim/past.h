// Which descriptors may be of sockets that the broker was asked about. A hint, so that what no rule
// protects costs no system call: what a socket is, SO_MARK and the broker say.
//
// Limits: not told of what came by another road (inherited, passed, dup()): such a socket, under an
// old latch, is held by the kernel to what it was latched to, and its connect() to elsewhere fails.
// Numbers from kPastLimit on always may. Async-signal-safe, no lock, errno untouched.
#ifndef SHIM_PAST_H_
#define SHIM_PAST_H_

namespace latchkey::shim {

inline constexpr int kPastLimit = 16'384;

void NotePast(int fd);
// The number is to be another's.
void ForgetPast(int fd);
bool MayHavePast(int fd);

}  // namespace latchkey::shim

#endif  // SHIM_PAST_H_
