// What a failed or ended call must say instead: a latch that broke, or that lost its SA for good,
// shows as ECONNRESET and as nothing else (the kernel would say ECONNABORTED, EPIPE, EAGAIN or end
// of file); one that was refused while the program's connect was in progress shows as the errno of
// the refusal.
#ifndef SHIM_TROUBLE_H_
#define SHIM_TROUBLE_H_

#include <sys/types.h>

#include <cerrno>

#include "shim/parts.h"
#include "shim/past.h"

namespace latchkey::shim {

// Looks closer at a call on `fd` that returned `result`; returns what the program is to see. Only
// called while some latch of the session is in trouble.
ssize_t LookCloser(int fd, ssize_t result);

// True while any latch of the session is in trouble: one load.
bool AnyTrouble();

// Returns the errno that a socket's latch has ended with, 0 when it has not.
int EndedWith(int fd);

// The same for a latch that never came to be: a connect that could not be latched after all. Its
// errno holds for every call on that socket, connect() too, until it is disconnected or closed.
int RefusedWith(int fd);

// Passes a connect()'s result on.
int CheckedConnect(int fd, int result);

// Passes a data call's result on. `eof`: a result of 0 would mean the end of the stream.
inline ssize_t Checked(int fd, ssize_t result, bool eof) {
  if (result > 0 || (result == 0 && !eof)) [[likely]] {
    return result;
  }
  return AnyTrouble() ? LookCloser(fd, result) : result;
}

// True when a UDP socket bears the mark of a latch, and that it cannot send now (EAGAIN) is for
// want of an SA. `flags`: of the call.
bool LacksKeys(int fd, int flags);

// Says ENOKEY where a send on a latched UDP socket said EAGAIN for want of an SA; returns -1.
ssize_t LookForKeys(int fd, int flags);

// Passes a sending call's result on.
inline ssize_t CheckedSend(int fd, ssize_t result, int flags = 0) {
  if (result >= 0) [[likely]] {
    NoteSent(fd, flags);
    return result;
  }
  if (AnyTrouble()) result = LookCloser(fd, result);
  return errno == EAGAIN && AnyDatagrams() ? LookForKeys(fd, flags) : result;
}

}  // namespace latchkey::shim

#endif  // SHIM_TROUBLE_H_
