// connect, bind, listen and the options that could undo a latch.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/ask.h"
#include "shim/datagrams.h"
#include "shim/held.h"
#include "shim/hook.h"
#include "shim/hooks.h"
#include "shim/latched_connect.h"
#include "shim/latchkey.h"
#include "shim/options.h"
#include "shim/page_view.h"
#include "shim/parts.h"
#include "shim/past.h"
#include "shim/readable.h"
#include "shim/real.h"
#include "shim/session.h"
#include "shim/trouble.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

constexpr int kTcpClose = 7;
constexpr uint32_t kSpecialPage = wire::kPageDenyDatagrams | wire::kPageRequests;

union AnyAddress {
  sockaddr base;
  sockaddr_in6 v6;
  sockaddr_storage storage;
};

int RealBind(int fd, const sockaddr* address, socklen_t length) {
  if (real.bind != nullptr) return real.bind(fd, address, length);
  return static_cast<int>(SystemCall(SYS_bind, fd, address, length));
}

int RealListen(int fd, int backlog) {
  if (real.listen != nullptr) return real.listen(fd, backlog);
  return static_cast<int>(SystemCall(SYS_listen, fd, backlog));
}

int Refuse(int error) {
  errno = error;
  return -1;
}

// True for a socket that the broker is to be asked about whatever the page says: one that bears the
// mark, which a request or an earlier latch left; and where there are requests, one with a past,
// which may have one and lost the mark. As a rule that costs no system call.
bool MustAsk(int fd) {
  const wire::Page* page = CurrentPage();
  if (page == nullptr) return false;
  const bool requests = (page->flags.load(std::memory_order_acquire) & wire::kPageRequests) != 0;
  const bool past = MayHavePast(fd);
  return requests ? past || IsGuarded(fd) : past && IsGuarded(fd);
}

wire::Settle Settle(const wire::Endpoint& remote, uint8_t protocol) {
  const wire::Page* page = CurrentPage();
  if (page != nullptr) return SettleConnect(*page, remote, protocol);
  return IsLoopback(remote) ? wire::Settle::kBypass : wire::Settle::kAsk;
}

// True for a UDP socket that may be, or have been, under a latch for another peer: what the policy
// lets pass must be told to the broker then.
bool HasPast(int fd) { return (IsGuarded(fd) || IsConnected(fd)) && IsUdp(fd); }

// connect() on a UDP socket: decided like TCP's, but it may be made, and made anew, at any time,
// and never waits for the peer.
int ConnectDatagrams(int fd, const sockaddr* address, socklen_t length,
                     const wire::Endpoint& remote) {
  const wire::Settle settle = Settle(remote, IPPROTO_UDP);
  if (settle == wire::Settle::kDiscard) {
    const Limits limits{.may_wait = false};
    AskAbout(wire::Type::kConnect, fd, remote, 0, limits);
    return Refuse(EACCES);
  }
  if (settle == wire::Settle::kBypass && !HasPast(fd)) return RealConnect(fd, address, length);
  NoteDatagrams();
  // Whatever comes of it, the kernel holds it in another way afterwards.
  ForgetHeld(fd);
  return LatchedConnect(fd, address, length, remote);
}

}  // namespace

bool FastOpenRefused(int fd, const sockaddr* address, socklen_t length, int flags) {
  if ((flags & MSG_FASTOPEN) == 0 || address == nullptr) return false;
  wire::Endpoint remote;
  if (!ReadEndpoint(address, length, remote)) return false;
  const int type = IntOption(fd, SOL_SOCKET, SO_TYPE);
  return (type == SOCK_STREAM || (type < 0 && IsInet(fd))) &&
         Settle(remote, IPPROTO_TCP) != wire::Settle::kBypass;
}

int HookConnect(int fd, const sockaddr* address, socklen_t length) {
  wire::Endpoint remote;
  AnyAddress copy{};
  if (address == nullptr || length < sizeof(sa_family_t) || length > sizeof(copy)) {
    return RealConnect(fd, address, length);
  }
  if (!IsReadable(address, length)) return RealConnect(fd, nullptr, length);
  // From here on only the copy counts: another thread may change the program's own.
  for (socklen_t i = 0; i < length; ++i) {
    reinterpret_cast<char*>(&copy)[i] = reinterpret_cast<const char*>(address)[i];
  }
  if (copy.base.sa_family == AF_UNSPEC) {
    // It may have another port afterwards, so the broker is to hear of it with the next send.
    ForgetHeld(fd);
    const int result = RealConnect(fd, &copy.base, length);
    if (result == 0 && !NothingToDo() && IsInet(fd)) {
      const int saved = errno;
      AskAbout(wire::Type::kRelease, fd, wire::Endpoint{});
      errno = saved;
    }
    return result;
  }
  if (!ReadEndpoint(&copy.base, length, remote)) return RealConnect(fd, &copy.base, length);
  if (const int error = RefusedWith(fd); error != 0) return Refuse(error);
  // Of what came by dup() and the like nothing was noted, but that there were latches of UDP.
  const bool past = MayHavePast(fd) || AnyDatagrams();
  // As a rule, where there is nothing to ask about:
  if (const wire::Page* page = CurrentPage();
      page != nullptr && !past &&
      (page->flags.load(std::memory_order_acquire) & kSpecialPage) == 0 &&
      BypassesAll(*page, remote)) {
    return RealConnect(fd, &copy.base, length);
  }
  wire::Settle settle = Settle(remote, IPPROTO_TCP);
  const bool must = settle == wire::Settle::kBypass && MustAsk(fd);
  if (settle == wire::Settle::kBypass && !must && !DatagramsDenied() &&
      Settle(remote, IPPROTO_UDP) == wire::Settle::kBypass &&
      (!past || NothingToDo() || !HasPast(fd))) {
    return RealConnect(fd, &copy.base, length);
  }
  const int protocol = IntOption(fd, SOL_SOCKET, SO_PROTOCOL);
  if (protocol == IPPROTO_UDP && IsDatagrams(fd)) {
    return ConnectDatagrams(fd, &copy.base, length, remote);
  }
  if (must) settle = wire::Settle::kAsk;
  const int state = protocol == IPPROTO_TCP ? TcpState(fd) : -1;  // a state: TCP beyond doubt
  if (state < 0) {
    const int type = IntOption(fd, SOL_SOCKET, SO_TYPE);
    if (!IsInet(fd)) return RealConnect(fd, &copy.base, length);  // EBADF, ENOTSOCK, …
    if (type < 0) return Refuse(EACCES);
    if (type != SOCK_STREAM) {
      if (BindRefused(fd, &copy.base, length)) return Refuse(EACCES);
      return RealConnect(fd, &copy.base, length);
    }
  }
  if (settle == wire::Settle::kBypass) return RealConnect(fd, &copy.base, length);
  if (settle == wire::Settle::kDiscard) {
    // Refused, whatever the broker says: it is asked so that the refusal is on record.
    const Limits limits{.may_wait = false};
    if (state == kTcpClose) AskAbout(wire::Type::kConnect, fd, remote, 0, limits);
    return Refuse(EACCES);
  }
  if (state < 0) return Refuse(EPROTONOSUPPORT);  // MPTCP, SCTP
  // Asked again about a connect in progress, the kernel answers (EALREADY, EISCONN, success).
  if (state != kTcpClose) return CheckedConnect(fd, RealConnect(fd, &copy.base, length));
  return LatchedConnect(fd, &copy.base, length, remote);
}

// libc's other name of it, which is for anybody to use, too.
int ConnectToo(int fd, const sockaddr* address, socklen_t length) LATCHKEY_HOOK(__connect);
int ConnectToo(int fd, const sockaddr* address, socklen_t length) {
  return HookConnect(fd, address, length);
}

int HookBind(int fd, const sockaddr* address, socklen_t length) {
  if (MustHold(fd)) {
    if (const int result = RealBind(fd, address, length); result != 0) return result;
    const int error = Hold(fd);
    return error == 0 ? 0 : Refuse(error);
  }
  if (BindRefused(fd, address, length)) return Refuse(EACCES);
  return RealBind(fd, address, length);
}

int HookListen(int fd, int backlog) {
  if ((NothingToDo() && !MustAsk(fd)) || !IsInet(fd)) return RealListen(fd, backlog);
  const int type = IntOption(fd, SOL_SOCKET, SO_TYPE);
  if (type < 0) return Refuse(EACCES);
  if (type != SOCK_STREAM) return RealListen(fd, backlog);
  const int protocol = IntOption(fd, SOL_SOCKET, SO_PROTOCOL);
  if (protocol != IPPROTO_TCP) return Refuse(EPROTONOSUPPORT);
  const int saved = errno;
  const Permission permission = AskAbout(wire::Type::kListen, fd, wire::Endpoint{});
  if (!permission.granted) return Refuse(permission.error);
  errno = saved;
  return RealListen(fd, backlog);
}

int HookSetsockopt(int fd, int level, int option, const void* value, socklen_t length) {
  const bool policy =
      (level == IPPROTO_IP && (option == IP_XFRM_POLICY || option == IP_IPSEC_POLICY)) ||
      (level == IPPROTO_IPV6 && (option == IPV6_XFRM_POLICY || option == IPV6_IPSEC_POLICY));
  // On any inet socket: one that has no latch yet would take it into its first.
  if (policy && IsInet(fd)) return Refuse(EPERM);
  if (level == SOL_LATCHKEY && HasOurOptions(fd)) {
    const int error = SetOption(fd, option, value, length);
    return error == 0 ? 0 : Refuse(error);
  }
  if (level == SOL_SOCKET && option == SO_MARK && IsInet(fd) && IsGuarded(fd)) {
    return Refuse(EPERM);
  }
  if (level == SOL_SOCKET && option == SO_RCVMARK) {
    if (const int error = SetMarks(fd, value, length); error >= 0) {
      return error == 0 ? 0 : Refuse(error);
    }
  }
  const bool merging = level == IPPROTO_UDP && option == UDP_GRO;
  if (merging) {
    if (const int error = SetMerging(fd, value, length); error >= 0) {
      return error == 0 ? 0 : Refuse(error);
    }
  }
  if (level == IPPROTO_TCP && option == TCP_FASTOPEN && !NothingToDo()) return Refuse(EOPNOTSUPP);
  const int result = static_cast<int>(
      real.setsockopt != nullptr ? real.setsockopt(fd, level, option, value, length)
                                 : SystemCall(SYS_setsockopt, fd, level, option, value, length));
  if (result == 0 && merging) KeepApart(fd);
  // The kernel has read it; another thread may have unmapped it since.
  if (result == 0 && level == IPPROTO_UDP && option == UDP_CORK && IsReadable(value, sizeof(int))) {
    NoteCork(fd, *static_cast<const int*>(value) != 0);
  }
  return result;
}

}  // namespace latchkey::shim
