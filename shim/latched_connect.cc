// A program must not be able to tell a wait for keys from a wait for the peer. The kernel's rules
// for a blocking connect(): a handler without SA_RESTART ends it with EINTR, SO_SNDTIMEO with
// EINPROGRESS, and in both cases the connection goes on being made: programs then poll for it, or
// call connect() once more. So when a wait is cut short here, the request is withdrawn and made
// anew as a program with a non-blocking socket makes it; the broker answers kLarval, the kernel's
// connect() is started, and the rest is the kernel's.

#include "shim/latched_connect.h"

#include <sys/syscall.h>
#include <sys/time.h>

#include <cerrno>

#include "shim/ask.h"
#include "shim/real.h"
#include "shim/trouble.h"
#include "shim/wait.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

// What a program that just got a signal, perhaps a Ctrl-C, waits all the same, at the very most.
constexpr int64_t kCutMs = 2'000;

int Fail(int error) {
  errno = error;
  return -1;
}

// Connects a blocking socket for `milliseconds` at most (0: a moment), then puts `before` back.
int ConnectWithin(int64_t milliseconds, const timeval& before, int fd, const sockaddr* address,
                  socklen_t length) {
  // O_NONBLOCK would do it too, but it changes reads of other threads, and a moment is enough.
  const timeval brief{milliseconds / 1000, milliseconds > 0 ? milliseconds % 1000 * 1000 : 1};
  RawSyscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, reinterpret_cast<long>(&brief),
             sizeof(brief));
  const int result = RealConnect(fd, address, length);
  RawSyscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, reinterpret_cast<long>(&before),
             sizeof(before));
  return result;
}

}  // namespace

int RealConnect(int fd, const sockaddr* address, socklen_t length) {
  if (real.connect != nullptr) return real.connect(fd, address, length);
  return static_cast<int>(SystemCall(SYS_connect, fd, address, length));
}

int LatchedConnect(int fd, const sockaddr* address, socklen_t length,
                   const wire::Endpoint& remote) {
  const int saved = errno;
  const int64_t start = NowMs();
  const bool blocking = !IsNonblocking(fd);
  timeval time_out{};
  const int64_t limit = blocking ? SendTimeout(fd, time_out) : 0;
  const uint32_t flags = blocking ? 0 : wire::kRequestNonblocking;
  Permission permission =
      AskAbout(wire::Type::kConnect, fd, remote, flags, CallLimits(blocking, limit));
  const int cut = blocking ? permission.cut : 0;
  if (cut != 0) {
    const Limits brief{.deadline = NowMs() + kCutMs};
    permission = AskAbout(wire::Type::kConnect, fd, remote, wire::kRequestNonblocking, brief);
  }
  if (!permission.granted) return Fail(permission.error);
  errno = saved;
  const int64_t spent = NowMs() - start;
  int result;
  if (cut != 0) {
    result = ConnectWithin(0, time_out, fd, address, length);
    if (result < 0 && (errno == EINPROGRESS || errno == EINTR)) errno = cut;
  } else if (limit != 0 && spent > 0) {
    result = ConnectWithin(limit > spent ? limit - spent : 0, time_out, fd, address, length);
  } else {
    result = RealConnect(fd, address, length);
  }
  if (result == 0 || errno == EINPROGRESS || errno == EINTR) return CheckedConnect(fd, result);
  const int error = errno;
  // It will not be connected: nobody need negotiate for it any more, and one of datagrams takes in
  // from anybody again.
  const bool datagrams = IntOption(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM;
  if (permission.larval || datagrams) {
    AskAbout(wire::Type::kRelease, fd, wire::Endpoint{});
  }
  // The SA went between the decision and the SYN: EAGAIN would make event loops spin.
  errno = error == EAGAIN && permission.latched ? ENOKEY : error;
  return CheckedConnect(fd, result);
}

}  // namespace latchkey::shim
