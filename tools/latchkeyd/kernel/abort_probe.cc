#include "tools/latchkeyd/kernel/abort_probe.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <string>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/datagrams.h"
#include "tools/latchkeyd/kernel/socket_ops.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

// A socket to try on, and what keeps its other end.
struct Victim {
  UniqueFd socket;
  UniqueFd listener;
  SocketFacts facts;
};

int StateOf(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return -1;
  return info.tcpi_state;
}

// A listener on loopback, even while loopback is down.
UniqueFd Listen() {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (!fd || setsockopt(fd.get(), SOL_IP, IP_FREEBIND, &yes, sizeof(yes)) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd.get(), 1) != 0) {
    return UniqueFd();
  }
  return fd;
}

std::optional<Victim> MakeVictim() {
  Victim victim;
  victim.listener = Listen();
  if (!victim.listener) return std::nullopt;
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(victim.listener.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return std::nullopt;
  }
  UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // On loopback the handshake is done before connect() returns; where it is not, the listener does.
  if (client) (void)connect(client.get(), reinterpret_cast<const sockaddr*>(&address), length);
  victim.socket = client && StateOf(client.get()) == TCP_ESTABLISHED ? std::move(client)
                                                                     : std::move(victim.listener);
  Result<SocketFacts> facts = InspectSocket(victim.socket.get(), std::nullopt);
  if (!facts) return std::nullopt;
  victim.facts = *facts;
  return victim;
}

// True when the socket is closed and, if it was connected, says so with an error.
bool IsAborted(const Victim& victim, int expected) {
  if (StateOf(victim.socket.get()) != TCP_CLOSE) return false;
  if (victim.facts.tcp_state != TCP_ESTABLISHED) return true;
  char octet = 0;
  return recv(victim.socket.get(), &octet, 1, MSG_DONTWAIT) < 0 && errno == expected;
}

// SOCK_DESTROY disconnects a UDP socket, no more: it is connected anew, so that nobody else's
// datagrams come in by a family that the block does not name.
Result<void> AbortDatagrams(InetDiag& diag, const AbortMeans& means, const SocketHint& hint, int fd,
                            const Flow& flow) {
  if (fd < 0) {
    // Not blocked: disconnected it would take in anybody's. Its pins hold until it can be reached.
    const Result<std::vector<LiveSocket>> live = diag.ListSockets();
    if (live && std::ranges::find(*live, hint.cookie, &LiveSocket::cookie) == live->end()) {
      return Fail(Reason::kClosed, "abort datagrams", "no connected socket with this cookie");
    }
    return Fail(Reason::kUnsupported, "abort datagrams", "no descriptor at hand");
  }
  if (CookieOf(fd) != hint.cookie) {
    return Fail(Reason::kBadRequest, "abort datagrams", "the descriptor is another socket's");
  }
  Result<void> done = Fail(Reason::kUnsupported, "abort datagrams", "no SOCK_DESTROY");
  if (means.destroy) done = diag.Destroy(hint.cookie, flow);
  if (!done) return ShutDownDatagrams(fd);
  int domain = 0;
  socklen_t length = sizeof(domain);
  static_cast<void>(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length));
  sockaddr_storage address{};
  length = ToSockaddr(flow.remote, domain == AF_INET6, 0, &address);
  static_cast<void>(connect(fd, reinterpret_cast<const sockaddr*>(&address), length));
  return done;
}

}  // namespace

Result<void> Disconnect(int fd) {
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  if (connect(fd, &nowhere, sizeof(nowhere)) != 0) {
    return Fail(Reason::kKernelRefused, "connect AF_UNSPEC", std::strerror(errno));
  }
  return {};
}

Result<AbortMeans> ProbeAbortMeans(InetDiag& diag) {
  AbortMeans means;
  std::string why = "no socket of its own to try on";
  if (const std::optional<Victim> victim = MakeVictim()) {
    const Flow flow{Direction::kOut, kProtocolTcp, victim->facts.local, victim->facts.remote};
    const Result<void> done = diag.Destroy(victim->facts.cookie, flow);
    if (!done) why = done.error().ToString();
    means.destroy = done.has_value() && IsAborted(*victim, ECONNABORTED);
  }
  if (const std::optional<Victim> victim = MakeVictim()) {
    const UniqueFd copy(fcntl(victim->socket.get(), F_DUPFD_CLOEXEC, 0));
    const Result<void> done = Disconnect(copy.get());
    if (!done) why += "; " + done.error().ToString();
    means.disconnect = done.has_value() && IsAborted(*victim, ECONNRESET);
  }
  if (!means.destroy && !means.disconnect) {
    return Fail(Reason::kUnsupported, "abort a socket of its own", why);
  }
  return means;
}

Result<void> AbortSocket(InetDiag& diag, const AbortMeans& means, const SocketHint& hint, int fd,
                         const Flow& flow) {
  if (flow.protocol == kProtocolUdp) return AbortDatagrams(diag, means, hint, fd, flow);
  Result<void> done = Fail(Reason::kUnsupported, "abort connection", "no descriptor at hand");
  if (means.destroy) {
    done = diag.Destroy(hint.cookie, flow);
    if (done) return done;
  }
  if (fd < 0 || !means.disconnect) return done;
  if (CookieOf(fd) != hint.cookie) {
    return Fail(Reason::kBadRequest, "abort connection", "the descriptor is another socket's");
  }
  return Disconnect(fd);
}

}  // namespace latchkey::broker
