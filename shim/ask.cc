#include "shim/ask.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/past.h"
#include "shim/session.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {

using wire::RawSyscall;

namespace {

// What a program that is not to wait waits all the same, at the very most: the broker may use up a
// part of a second in case the keys are there by then.
constexpr int64_t kNonblockingMs = 10'000;
constexpr int64_t kLongest = 1'000'000;  // seconds; more is as good as none

}  // namespace

int IntOption(int fd, int level, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  const long result = RawSyscall(SYS_getsockopt, fd, level, option, reinterpret_cast<long>(&value),
                                 reinterpret_cast<long>(&length));
  return result < 0 || length != sizeof(value) ? -1 : value;
}

bool IsInet(int fd) {
  int domain = AF_UNSPEC;
  socklen_t length = sizeof(domain);
  const long result = RawSyscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN,
                                 reinterpret_cast<long>(&domain), reinterpret_cast<long>(&length));
  // A sandbox may deny the question, and what is not known must not pass.
  if (result < 0) return result != -EBADF && result != -ENOTSOCK;
  // SMC's peers are those of the TCP beneath it.
  return domain == AF_INET || domain == AF_INET6 || domain == AF_SMC;
}

bool CookieOf(int fd, uint64_t& cookie) {
  socklen_t length = sizeof(cookie);
  return wire::RawSyscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE,
                          reinterpret_cast<long>(&cookie), reinterpret_cast<long>(&length)) == 0;
}

bool IsNonblocking(int fd) {
  const long flags = RawSyscall(SYS_fcntl, fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

bool IsGuarded(int fd) {
  // The bit is the broker's choice (mark_mask of system.toml). Without a page any mark may be it.
  const wire::Page* page = CurrentPage();
  const uint32_t bit = page == nullptr ? ~0U : page->guard_mark.load(std::memory_order_relaxed);
  return (static_cast<uint32_t>(IntOption(fd, SOL_SOCKET, SO_MARK)) & bit) != 0;
}

int TcpState(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  const long result = RawSyscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO,
                                 reinterpret_cast<long>(&info), reinterpret_cast<long>(&length));
  return result < 0 || length == 0 ? -1 : info.tcpi_state;
}

int64_t SendTimeout(int fd, timeval& value) {
  socklen_t length = sizeof(value);
  const long result = RawSyscall(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDTIMEO,
                                 reinterpret_cast<long>(&value), reinterpret_cast<long>(&length));
  if (result < 0 || length != sizeof(value) || value.tv_sec > kLongest) return 0;
  return value.tv_sec * 1000 + (value.tv_usec + 999) / 1000;
}

Limits CallLimits(bool blocking, int64_t time_out) {
  Limits limits;
  if (!blocking) {
    limits.deadline = NowMs() + kNonblockingMs;
  } else if (time_out != 0) {
    limits.signals = Signals::kAny;
    limits.deadline = NowMs() + time_out;
  } else {
    limits.signals = Signals::kUnlessRestart;
  }
  return limits;
}

Permission AskAbout(wire::Type type, int fd, const wire::Endpoint& remote, uint32_t flags,
                    const Limits& limits) {
  if (type != wire::Type::kRelease) NotePast(fd);
  wire::SocketRequest request{};
  request.header = wire::MakeHeader(type, NextSerial());
  request.flags = flags;
  request.fd = fd;
  request.remote = remote;
  wire::Received received;
  const int error = Ask(&request, sizeof(request), fd, wire::Type::kDecision, received, limits);
  if (error != 0) {
    const int cut = error == EINTR ? EINTR : error == ETIME ? EINPROGRESS : 0;
    return Permission{.cut = cut, .error = ClosedErrno()};
  }
  wire::CloseDescriptors(received);
  const auto& decision = received.As<wire::Decision>();
  switch (decision.verdict) {
    case wire::Verdict::kLatched:
      return Permission{.granted = true, .latched = true};
    case wire::Verdict::kLarval:
      if (type != wire::Type::kConnect) break;
      return Permission{.granted = true, .latched = true, .larval = true};
    case wire::Verdict::kBypass:
    case wire::Verdict::kLocal:
      return Permission{.granted = true};
    case wire::Verdict::kWait:
    case wire::Verdict::kRefused:
      break;
  }
  return Permission{.error = decision.error > 0 ? decision.error : EACCES,
                    .reason = decision.reason};
}

}  // namespace latchkey::shim
