#include "shim/datagrams.h"

#include <netinet/in.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "shim/ask.h"
#include "shim/held.h"
#include "shim/page_view.h"
#include "shim/parts.h"
#include "shim/past.h"
#include "shim/readable.h"
#include "shim/session.h"
#include "shim/trouble.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

constexpr int kPageTries = 100;  // rewriting it takes microseconds
constexpr uint32_t kLookedAt =
    wire::kPageDenyDatagrams | wire::kPageDatagramRules | wire::kPageHold;

// Where a datagram goes.
struct Target {
  bool inet = false;         // and `remote` holds
  bool unspecified = false;  // AF_UNSPEC, which means AF_INET to an IPv4 socket
  wire::Endpoint remote{};
};

// Reads a copy, which the program's other threads cannot change; neither `inet` nor `unspecified`
// where the kernel refuses it (EINVAL, EFAULT), or when it is another family's.
Target ReadTarget(const sockaddr* address, socklen_t length) {
  union {
    sockaddr base;
    sockaddr_storage storage;
  } copy{};
  Target target;
  if (length < sizeof(sa_family_t) || length > sizeof(copy) || !IsReadable(address, length)) {
    return target;
  }
  for (socklen_t i = 0; i < length; ++i) {
    reinterpret_cast<char*>(&copy)[i] = reinterpret_cast<const char*>(address)[i];
  }
  target.unspecified = copy.base.sa_family == AF_UNSPEC;
  if (target.unspecified) copy.base.sa_family = AF_INET;
  target.inet = ReadEndpoint(&copy.base, length, target.remote);
  return target;
}

uint32_t FlagsOf(const wire::Page* page) {
  return page == nullptr ? 0 : page->flags.load(std::memory_order_acquire);
}

// What the page says; its answer must be one: kProtect when it goes on being rewritten.
wire::Settle SettleDatagram(const wire::Page& page, const wire::Endpoint& remote) {
  for (int i = 0; i < kPageTries; ++i) {
    const uint32_t before = page.generation.load(std::memory_order_acquire);
    const wire::Settle settle = SettleConnect(page, remote, IPPROTO_UDP);
    const bool steady = page.generation.load(std::memory_order_relaxed) == before;
    if ((before & 1) == 0 && steady) return settle;
    wire::RawSyscall(SYS_sched_yield);
  }
  return wire::Settle::kProtect;
}

// Notes what the broker's word on a socket comes to.
void Remember(int fd) {
  NoteDatagrams();
  NoteHeld(fd);
  // In this order: a thread that closes it meanwhile either finds the hint, or has the number be
  // one without a mark.
  if (IsGuarded(fd)) return;
  ForgetHeld(fd);
  NoteFree(fd);
}

// Asks whether `fd` may send to `remote`; 0 or the errno.
int AskPeer(int fd, const wire::Endpoint& remote, int flags) {
  const int saved = errno;
  const bool blocking = (flags & MSG_DONTWAIT) == 0 && !IsNonblocking(fd);
  timeval time_out{};
  const Limits limits = CallLimits(blocking, blocking ? SendTimeout(fd, time_out) : 0);
  const Permission permission =
      AskAbout(wire::Type::kPeer, fd, remote, blocking ? 0 : wire::kRequestNonblocking, limits);
  errno = saved;
  if (permission.granted) {
    Remember(fd);
    return 0;
  }
  if (!blocking || permission.cut == 0) return permission.error;
  // Not EAGAIN, as for want of room: nobody would call again.
  return permission.cut == EINTR ? EINTR : ETIMEDOUT;
}

}  // namespace

bool IsDatagrams(int fd) { return IntOption(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM && IsInet(fd); }

bool IsUdp(int fd) {
  return IntOption(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP && IsDatagrams(fd);
}

bool IsConnected(int fd) {
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  return wire::RawSyscall(SYS_getpeername, fd, reinterpret_cast<long>(&peer),
                          reinterpret_cast<long>(&length)) == 0;
}

bool DatagramsDenied() {
  const wire::Page* page = CurrentPage();
  // Without a session nothing is known: what is not TCP is refused as if the default were discard.
  return page == nullptr || (FlagsOf(page) & wire::kPageDenyDatagrams) != 0;
}

bool BindRefused(int fd, const sockaddr* address, socklen_t length) {
  const bool denied = DatagramsDenied();
  const bool held = (FlagsOf(CurrentPage()) & wire::kPageHold) != 0;
  if (address == nullptr || (!denied && !held)) return false;
  const int type = IntOption(fd, SOL_SOCKET, SO_TYPE);
  // What a sandbox hides is not known, so not passed.
  if (type == SOCK_STREAM || (!denied && type >= 0)) return false;
  // Left to the kernel: EINVAL, EFAULT.
  if (length > sizeof(sockaddr_storage) || !IsReadable(address, length)) return false;
  wire::Endpoint local;
  // Sent to or bound, AF_UNSPEC means AF_INET to an IPv4 socket.
  const bool inet = ReadEndpoint(address, length, local);
  if (!inet && (length < sizeof(sa_family_t) || address->sa_family != AF_UNSPEC)) return false;
  if (inet && CurrentPage() == nullptr && IsLoopback(local)) return false;
  return IsInet(fd);
}

bool MustHold(int fd) {
  constexpr uint32_t kTold = wire::kPageHold | wire::kPageDenyDatagrams;
  const uint32_t flags = FlagsOf(CurrentPage());
  // A request of the socket's own left the mark.
  const bool asked = (flags & wire::kPageRequests) != 0 && MayHavePast(fd) && IsGuarded(fd);
  return ((flags & kTold) != 0 || asked) && IsUdp(fd);
}

int Hold(int fd) {
  const int saved = errno;
  const Permission permission = AskAbout(wire::Type::kHold, fd, wire::Endpoint{});
  errno = saved;
  if (!permission.granted) return permission.error;
  Remember(fd);
  return 0;
}

int BeforeSend(int fd, const sockaddr* address, socklen_t length, int flags) {
  if (address == nullptr) return 0;
  const wire::Page* page = CurrentPage();
  const uint32_t page_flags = FlagsOf(page);
  const bool looked_at = (page_flags & kLookedAt) != 0 && (page_flags & wire::kPageNoRules) == 0;
  if ((page != nullptr && !looked_at) || IsHeld(fd)) return 0;
  const Target target = ReadTarget(address, length);
  if (!target.inet && !target.unspecified) return 0;
  if (page == nullptr) {
    const bool local = target.inet && IsLoopback(target.remote);
    const bool refused = !local && IsInet(fd) && IntOption(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM;
    return refused ? EACCES : 0;
  }
  const wire::Settle settle =
      target.inet ? SettleDatagram(*page, target.remote) : wire::Settle::kAsk;
  const bool denied = (page_flags & wire::kPageDenyDatagrams) != 0;
  const bool ruled = settle == wire::Settle::kProtect || settle == wire::Settle::kDiscard;
  // One that sends without having been bound takes in from then on, too.
  const bool untold = (page_flags & wire::kPageHold) != 0 && !IsFree(fd);
  if (!denied && !ruled && !untold) return 0;
  const int type = IntOption(fd, SOL_SOCKET, SO_TYPE);
  if (!IsInet(fd) || type == SOCK_STREAM) return 0;
  if (type < 0) return EACCES;  // hidden by a sandbox: not known, so not passed
  if (!IsUdp(fd)) return denied ? EACCES : 0;
  if (IsConnected(fd)) {
    // It takes in nobody else's, and what a latched one sends, wherever to, the kernel holds to its
    // latch.
    const bool passes = settle == wire::Settle::kBypass || (!denied && !ruled) || IsGuarded(fd);
    return passes ? 0 : EACCES;
  }
  // Too short: EINVAL for IPv4, and no address at all for IPv6.
  if (!target.inet) return denied && !IsGuarded(fd) ? EACCES : 0;
  // A rule about what comes in may cover what is sent from there.
  const bool discarded = settle == wire::Settle::kDiscard;
  if (discarded && !denied && (page_flags & wire::kPageHold) == 0) return EACCES;
  return AskPeer(fd, target.remote, flags);
}

bool GrantedLate(int fd, const sockaddr* address, socklen_t length, int flags) {
  // The parts before this one are lost.
  if (TakePart(fd)) return false;
  const int saved = errno;
  const Target target = CurrentPage() == nullptr ? Target{} : ReadTarget(address, length);
  // A firewall says EPERM, too, EAGAIN is said for want of room, and EINVAL of bad arguments; but
  // also by an SA that ran out with this very datagram.
  const bool ours =
      target.inet && IsGuarded(fd) && IsUdp(fd) && !IsConnected(fd) &&
      (saved == EPERM || (saved == EINVAL && target.remote.port != 0) || LacksKeys(fd, flags));
  const int error = ours ? AskPeer(fd, target.remote, flags) : saved;
  errno = error != 0 ? error : saved;
  return error == 0;
}

}  // namespace latchkey::shim
