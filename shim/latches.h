// The cmsg LATCHKEY_LATCH on sockets with LATCHKEY_LATCHES, and that of a mark. What is received
// costs two loads in a session where no program has asked for it. What is sent is looked at
// wherever it has control data, since the kernel would ignore the cmsg and let the datagram go; in
// such a session without asking whether they can be read, which takes a system call.
// Async-signal-safe, no allocation, errno untouched.
#ifndef SHIM_LATCHES_H_
#define SHIM_LATCHES_H_

#include <sys/socket.h>

#include "shim/ancillary.h"

namespace latchkey::shim {

// True when some program of the session wants to be told of latches.
bool TellsLatches();

// What the program of this socket wants to be told.
Wants WantsOf(int fd);

// Names the latch of what was received, where its program wants it. `room`: the message's before.
void NameReceived(int fd, msghdr& message, const Room& room);

// Of what recvmmsg() has room for, in 4 KiB of the stack; of those past the last, nothing.
struct Rooms {
  static constexpr unsigned kMost = 1024;  // UIO_MAXIOV: what sendmmsg() takes
  Room each[kMost];

  Rooms(const mmsghdr* messages, unsigned count);
};
void NameReceived(int fd, mmsghdr* messages, unsigned count, const Rooms& rooms);

// True where a message names the latch that it is to leave under. Never without a session.
bool MayName(const msghdr& message);

// Returns the errno that a message is not to be sent with for control data that could undo what
// holds its socket; 0: none.
int ControlError(int fd, const msghdr& message);

// Returns the errno that a datagram is not to be sent with under this latch; 0: none.
int SendErrorUnder(int fd, uint64_t latch, const msghdr& message);

}  // namespace latchkey::shim

#endif  // SHIM_LATCHES_H_
