// What hooks ask about sockets: cheap look-ups by system call, and the broker's decision.
#ifndef SHIM_ASK_H_
#define SHIM_ASK_H_

#include <sys/socket.h>
#include <sys/time.h>

#include "shim/link.h"
#include "shim/wire/messages.h"

namespace latchkey::shim {

// Returns the value of an int socket option, or -1.
int IntOption(int fd, int level, int option);

// True for AF_INET and AF_INET6 sockets; also for a socket when that cannot be known.
bool IsInet(int fd);

// Reads SO_COOKIE: false for what is no socket.
bool CookieOf(int fd, uint64_t& cookie);

// True when calls on it are not to wait (SOCK_NONBLOCK is the same flag).
bool IsNonblocking(int fd);

// True when the socket bears the mark of a latch; also when that cannot be known.
bool IsGuarded(int fd);

// Returns the kernel's TCP state of the socket (7 = closed), or -1.
int TcpState(int fd);

// SO_SNDTIMEO as the socket has it, and in milliseconds, rounded up; 0 = none.
int64_t SendTimeout(int fd, timeval& value);

// What ends the wait of a call that the kernel would let wait for `time_out` ms (0: as long as it
// takes), or not at all unless `blocking`: then it is the broker that keeps it short.
Limits CallLimits(bool blocking, int64_t time_out);

struct Permission {
  bool granted = false;
  bool latched = false;
  bool larval = false;  // latched, and nothing moves until the SA is there
  int cut = 0;          // not granted since the wait ended first: the errno connect() has for that
  int error = 0;        // errno when not granted; never 0 then
  // As the broker says it when not granted; kNone: it did not answer.
  wire::Reason reason = wire::Reason::kNone;
};

// Asks the broker about a socket; `flags` kRequest…. Whatever goes wrong is a refusal.
Permission AskAbout(wire::Type type, int fd, const wire::Endpoint& remote, uint32_t flags = 0,
                    const Limits& limits = {});

}  // namespace latchkey::shim

#endif  // SHIM_ASK_H_
