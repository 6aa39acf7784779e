#include "tools/latchkeyd/kernel/socket_ops.h"

#include <linux/membarrier.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/xfrm_build.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

template <typename T>
bool GetOption(int fd, int level, int option, T* value) {
  socklen_t length = sizeof(*value);
  return getsockopt(fd, level, option, value, &length) == 0 && length == sizeof(*value);
}

std::unexpected<Error> Refused(const std::string& call) {
  const int number = errno;
  return Fail(Reason::kKernelRefused, call, std::strerror(number));
}

Result<void> SetPolicyValue(int fd, bool v6_socket, const Octets& value, const char* direction) {
  const int level = v6_socket ? SOL_IPV6 : SOL_IP;
  const int option = v6_socket ? IPV6_XFRM_POLICY : IP_XFRM_POLICY;
  const void* data = value.empty() ? nullptr : value.data();
  if (setsockopt(fd, level, option, data, static_cast<socklen_t>(value.size())) != 0) {
    return Refused(std::string("setsockopt ") + (v6_socket ? "IPV6" : "IP") + "_XFRM_POLICY " +
                   direction);
  }
  return {};
}

// Tells TCP and UDP from a raw socket of the same protocol, which has no TCP_INFO.
Result<void> ReadKind(int fd, SocketFacts* facts) {
  int protocol = 0;
  if (!GetOption(fd, SOL_SOCKET, SO_PROTOCOL, &protocol)) return Refused("getsockopt SO_PROTOCOL");
  if (protocol == IPPROTO_TCP) {
    tcp_info info{};
    socklen_t length = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && length > 0) {
      facts->stream_tcp = true;
      facts->tcp_state = info.tcpi_state;
    } else if (errno != ENOPROTOOPT && errno != EOPNOTSUPP) {
      return Refused("getsockopt TCP_INFO");
    }
  } else if (protocol == IPPROTO_UDP) {
    int type = 0;
    if (!GetOption(fd, SOL_SOCKET, SO_TYPE, &type)) return Refused("getsockopt SO_TYPE");
    facts->datagram_udp = type == SOCK_DGRAM;
  }
  return {};
}

Result<void> ReadInet(int fd, SocketFacts* facts) {
  if (Result<void> kind = ReadKind(fd, facts); !kind) return kind;
  if (facts->datagram_udp) {
    pollfd hung_up{fd, 0, 0};
    facts->shut_down = poll(&hung_up, 1, 0) > 0 && (hung_up.revents & POLLHUP) != 0;
  }
  if (facts->v6_socket) {
    int only = 0;
    if (!GetOption(fd, SOL_IPV6, IPV6_V6ONLY, &only)) return Refused("getsockopt IPV6_V6ONLY");
    facts->v6_only = only != 0;
  }
  if (facts->stream_tcp && facts->tcp_state == TCP_CLOSE) return {};  // nobody at the other end
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    facts->remote = FromSockaddr(address, length);
  } else if (errno != ENOTCONN && errno != EINVAL) {  // EINVAL: shut down both ways
    return Refused("getpeername");
  }
  return {};
}

// What GRO merges is checked as its first datagram (net/core/gro.c compares no SAs): the others of
// a burst would come in as that one's peer's.
Result<void> KeepDatagramsApart(int fd) {
  const int no = 0;
  if (setsockopt(fd, SOL_UDP, UDP_GRO, &no, sizeof(no)) == 0) return {};
  return Refused("setsockopt UDP_GRO");
}

bool AskForBroadcast(int fd, bool on) {
  const int value = on ? 1 : 0;
  return setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &value, sizeof(value)) == 0;
}

// Connects a UDP socket, without what its last connection left, which would be kept as the source
// address; 0 or the errno. The port does not matter: nothing is ever sent.
int ConnectAnew(int fd, const Address& remote, bool v6, uint32_t scope) {
  const sockaddr nothing{AF_UNSPEC, {}};
  if (connect(fd, &nothing, sizeof(nothing)) != 0) return errno;
  sockaddr_storage address{};
  const socklen_t length = ToSockaddr(SocketAddress{remote, 9}, v6, scope, &address);
  if (length == 0) return EINVAL;
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0 ? 0 : errno;
}

}  // namespace

std::optional<uint64_t> OwnNetnsCookie() {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  uint64_t cookie = 0;
  if (!fd || !GetOption(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie)) return std::nullopt;
  return cookie;
}

std::optional<uint64_t> CookieOf(int fd) {
  uint64_t cookie = 0;
  if (!GetOption(fd, SOL_SOCKET, SO_COOKIE, &cookie) || cookie == 0) return std::nullopt;
  return cookie;
}

Result<SocketFacts> InspectSocket(int fd, std::optional<uint64_t> netns) {
  SocketFacts facts;
  struct stat status {};
  if (fstat(fd, &status) != 0) return Refused("fstat");
  if (!S_ISSOCK(status.st_mode)) {
    return Fail(Reason::kBadRequest, "inspect socket", "the descriptor is no socket");
  }
  facts.inode = status.st_ino;
  const std::optional<uint64_t> cookie = CookieOf(fd);
  if (!cookie) return Refused("getsockopt SO_COOKIE");
  facts.cookie = *cookie;
  // An inet socket's name is of its family, bound or not.
  sockaddr_storage name{};
  socklen_t length = sizeof(name);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) {
    if (errno != EOPNOTSUPP) return Refused("getsockname");
    name.ss_family = AF_UNSPEC;  // a family without names
  }
  facts.inet = name.ss_family == AF_INET || name.ss_family == AF_INET6;
  facts.v6_socket = name.ss_family == AF_INET6;
  uint64_t socket_netns = 0;
  facts.own_netns = netns.has_value() &&
                    GetOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, &socket_netns) &&
                    socket_netns == *netns;
  if (!GetOption(fd, SOL_SOCKET, SO_MARK, &facts.mark)) return Refused("getsockopt SO_MARK");
  if (facts.inet) {
    facts.local = FromSockaddr(name, length);
    if (Result<void> read = ReadInet(fd, &facts); !read) return std::unexpected(read.error());
  }
  return facts;
}

Result<void> SetSocketPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) {
  Result<SocketPolicyValues> values = BuildSocketPolicy(policy);
  if (!values) return std::unexpected(values.error());
  if (values->clear) return SetPolicyValue(fd, facts.v6_socket, {}, "clear");
  if (!facts.v6_socket && policy.family == Family::kV6) {
    return Fail(Reason::kBadRequest, "set socket policy", "an IPv6 policy for an IPv4 socket");
  }
  Result<void> result;
  if (values->in) result = SetPolicyValue(fd, facts.v6_socket, *values->in, "in");
  if (!result && policy.kind != SocketPolicy::Kind::kBlock) return result;
  if (values->out) {
    Result<void> out = SetPolicyValue(fd, facts.v6_socket, *values->out, "out");
    if (result) result = std::move(out);
  }
  return result;
}

Result<void> SetSocketMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) {
  const uint32_t mark = (facts.mark & ~mask) | (value & mask);
  // The mark first: there are callers who only want the socket stopped, and look at no error.
  if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) {
    return Refused("setsockopt SO_MARK");
  }
  return facts.datagram_udp && (value & mask) != 0 ? KeepDatagramsApart(fd) : Result<void>{};
}

// The kernel takes a packet from policy check to socket in one RCU read section.
Result<void> AwaitPacketsOnTheWay() {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) return {};
  return Refused("membarrier");
}

Result<void> TellSocketMarks(int fd, bool on) {
  const int value = on ? 1 : 0;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVMARK, &value, sizeof(value)) == 0) return {};
  const Reason reason = errno == ENOPROTOOPT ? Reason::kUnsupported : Reason::kKernelRefused;
  return Fail(reason, "set SO_RCVMARK", strerror(errno));
}

bool SharesItsPort(int fd) {
  int shares = 0;
  socklen_t length = sizeof(shares);
  return getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shares, &length) != 0 || shares != 0;
}

bool SourceFinder::Open(Family family) {
  const bool v6 = family == Family::kV6;
  UniqueFd& fd = v6 ? v6_ : v4_;
  if (fd) return true;
  UniqueFd fresh(socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fresh || !AskForBroadcast(fresh.get(), true)) return false;
  if (!SetPolicyValue(fresh.get(), v6, BuildSocketBypass(family, /*out=*/true), "out")) {
    return false;
  }
  fd = std::move(fresh);
  return true;
}

std::optional<Address> SourceFinder::Find(const Address& remote, uint32_t scope) {
  if (remote.family == Family::kNone || !Open(remote.family)) return std::nullopt;
  const bool v6 = remote.family == Family::kV6;
  const int fd = v6 ? v6_.get() : v4_.get();
  if (ConnectAnew(fd, remote, v6, scope) != 0) return std::nullopt;
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return std::nullopt;
  }
  const SocketAddress local = FromSockaddr(address, length);
  if (local.address.family != remote.family || local.address.IsAny()) return std::nullopt;
  return local.address;
}

bool SourceFinder::IsBroadcast(const Address& remote) {
  if (remote.family != Family::kV4 || !Open(Family::kV4)) return false;
  if (!AskForBroadcast(v4_.get(), false)) return false;
  const bool refused = ConnectAnew(v4_.get(), remote, /*v6=*/false, 0) == EACCES;
  // A route may be prohibited as well, and stays so.
  return AskForBroadcast(v4_.get(), true) && refused &&
         ConnectAnew(v4_.get(), remote, /*v6=*/false, 0) == 0;
}

Result<void> BindToAny(int fd, const SocketFacts& facts) {
  sockaddr_storage address{};
  const Family family = facts.v6_socket ? Family::kV6 : Family::kV4;
  // An address without a port stays (IP_BIND_ADDRESS_NO_PORT).
  const bool any = facts.local.address.family == Family::kNone || facts.local.address.IsAny();
  const Address local = any ? Address::AnyOf(family) : facts.local.address;
  const socklen_t length = ToSockaddr(SocketAddress{local, 0}, facts.v6_socket, 0, &address);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), length) != 0) return Refused("bind");
  return {};
}

}  // namespace latchkey::broker
