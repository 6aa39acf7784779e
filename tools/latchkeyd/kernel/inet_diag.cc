#include "tools/latchkeyd/kernel/inet_diag.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace latchkey::broker {
namespace {

constexpr int kAttempts = 3;  // dumps may be interrupted by changes

constexpr uint32_t StateBit(int state) { return 1u << state; }

// A request of no state in particular has every bit of the twelve there are.
constexpr uint32_t kLiveStates = 0xffeu & ~(StateBit(TCP_TIME_WAIT) | StateBit(TCP_CLOSE));

std::vector<uint8_t> Request(uint16_t type, const inet_diag_req_v2& request) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_len = sizeof(header) + sizeof(request);
  std::vector<uint8_t> octets(header.nlmsg_len);
  std::memcpy(octets.data(), &header, sizeof(header));
  std::memcpy(octets.data() + sizeof(header), &request, sizeof(request));
  return octets;
}

std::optional<inet_diag_msg> Body(std::span<const uint8_t> message) {
  nlmsghdr header;
  inet_diag_msg body;
  if (message.size() < sizeof(header) + sizeof(body)) return std::nullopt;
  std::memcpy(&header, message.data(), sizeof(header));
  if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY || header.nlmsg_len > message.size() ||
      header.nlmsg_len < sizeof(header) + sizeof(body)) {
    return std::nullopt;
  }
  std::memcpy(&body, message.data() + sizeof(header), sizeof(body));
  if (body.idiag_family != AF_INET && body.idiag_family != AF_INET6) return std::nullopt;
  return body;
}

uint64_t CookieIn(const inet_diag_sockid& id) {
  return (uint64_t{id.idiag_cookie[1]} << 32) | id.idiag_cookie[0];
}

SocketAddress AddressIn(uint8_t family, const uint32_t (&octets)[4], uint16_t port) {
  SocketAddress address;
  address.address = family == AF_INET ? Address::FromV4(octets) : Address::FromV6(octets);
  address.port = ntohs(port);
  return address;
}

// The kernel tells it to CAP_NET_ADMIN alone, and not at all where it is 0.
uint32_t MarkIn(std::span<const uint8_t> message) {
  nlmsghdr header;
  std::memcpy(&header, message.data(), sizeof(header));
  std::span<const uint8_t> rest =
      message.subspan(NLMSG_HDRLEN + sizeof(inet_diag_msg),
                      header.nlmsg_len - NLMSG_HDRLEN - sizeof(inet_diag_msg));
  uint32_t mark = 0;
  nlattr attribute;
  while (rest.size() >= sizeof(attribute)) {
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > rest.size()) break;
    if (attribute.nla_type == INET_DIAG_MARK && attribute.nla_len == NLA_HDRLEN + sizeof(mark)) {
      std::memcpy(&mark, rest.data() + NLA_HDRLEN, sizeof(mark));
    }
    rest = rest.subspan(std::min<size_t>(NLA_ALIGN(attribute.nla_len), rest.size()));
  }
  return mark;
}

// A UDP socket that is connected is in the one, every other in the other.
constexpr uint32_t kDatagramStates = StateBit(TCP_ESTABLISHED) | StateBit(TCP_CLOSE);

// Dumps both families; every message's body goes to `visit`.
template <typename Visit>
std::expected<void, NetlinkError> DumpSockets(NetlinkSocket& socket, uint8_t protocol,
                                              Visit visit) {
  for (const uint8_t family : {AF_INET, AF_INET6}) {
    inet_diag_req_v2 request{};
    request.sdiag_family = family;
    request.sdiag_protocol = protocol;
    request.idiag_states = protocol == IPPROTO_UDP ? kDatagramStates : kLiveStates;
    auto done = socket.Dump(Request(SOCK_DIAG_BY_FAMILY, request), visit);
    // A kernel without IPv6 has none of its sockets either, and one without udp_diag tells nothing.
    const bool spared = family == AF_INET6 || protocol == IPPROTO_UDP;
    if (!done && spared && done.error().number == ENOENT) continue;
    if (!done) return done;
  }
  return {};
}

std::expected<void, NetlinkError> DestroyOne(NetlinkSocket& socket, uint8_t protocol,
                                             uint8_t family, const inet_diag_sockid& id) {
  inet_diag_req_v2 request{};
  request.sdiag_family = family;
  request.sdiag_protocol = protocol;
  request.idiag_states = ~0u;
  request.id = id;
  return socket.Request(Request(SOCK_DESTROY, request));
}

std::unexpected<Error> NoDestroy(const NetlinkError& error) {
  if (error.number == EOPNOTSUPP) {
    return Fail(Reason::kUnsupported, "SOCK_DESTROY", "not in this kernel");
  }
  return Fail(Reason::kKernelRefused, "SOCK_DESTROY", error.ToString());
}

}  // namespace

Result<InetDiag> InetDiag::Open() {
  Result<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_SOCK_DIAG);
  if (!socket) return std::unexpected(socket.error());
  return InetDiag(std::move(*socket));
}

std::optional<LiveSocket> ParseDiag(std::span<const uint8_t> message) {
  const std::optional<inet_diag_msg> body = Body(message);
  if (!body) return std::nullopt;
  LiveSocket socket;
  socket.cookie = CookieIn(body->id);
  socket.tcp_state = body->idiag_state;
  socket.queued = body->idiag_state == TCP_LISTEN ? body->idiag_rqueue : 0;
  socket.local = AddressIn(body->idiag_family, body->id.idiag_src, body->id.idiag_sport);
  socket.remote = AddressIn(body->idiag_family, body->id.idiag_dst, body->id.idiag_dport);
  if (socket.remote.port == 0) socket.remote = SocketAddress{};
  socket.inode = body->idiag_inode;
  socket.mark = MarkIn(message);
  return socket;
}

Result<std::vector<LiveSocket>> InetDiag::ListSockets() {
  std::vector<LiveSocket> sockets;
  std::expected<void, NetlinkError> done;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    sockets.clear();
    uint8_t protocol = IPPROTO_TCP;
    const auto keep = [&](std::span<const uint8_t> message) {
      std::optional<LiveSocket> socket = ParseDiag(message);
      if (!socket) return false;
      socket->protocol = protocol;
      // A host may have many that are no business of ours; who marked them is to tell.
      const bool free = protocol == IPPROTO_UDP && socket->tcp_state == TCP_CLOSE;
      if (!free || socket->mark != 0) sockets.push_back(*socket);
      return true;
    };
    done = DumpSockets(socket_, protocol, keep);
    protocol = IPPROTO_UDP;
    if (done) done = DumpSockets(socket_, protocol, keep);
    if (done) return sockets;
    if (done.error().number != EINTR) break;
  }
  return Fail(Reason::kKernelRefused, "list sockets", done.error().ToString());
}

Result<std::unordered_set<uint64_t>> InetDiag::ListDatagramCookies() {
  std::unordered_set<uint64_t> cookies;
  std::expected<void, NetlinkError> done;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    // Those of an attempt that was interrupted were there too.
    done = DumpSockets(socket_, IPPROTO_UDP, [&](std::span<const uint8_t> message) {
      const std::optional<inet_diag_msg> body = Body(message);
      if (body) cookies.insert(CookieIn(body->id));
      return body.has_value();
    });
    if (done || done.error().number != EINTR) break;
  }
  if (!done) return Fail(Reason::kKernelRefused, "list UDP sockets", done.error().ToString());
  return cookies;
}

Result<void> InetDiag::Destroy(uint64_t cookie, const Flow& flow) {
  if (cookie == 0) return Fail(Reason::kBadRequest, "SOCK_DESTROY", "no cookie");
  if (flow.local.port != 0 && flow.local.address.family != Family::kNone) {
    inet_diag_sockid id{};
    id.idiag_sport = htons(flow.local.port);
    id.idiag_dport = htons(flow.remote.port);
    std::memcpy(id.idiag_src, flow.local.address.octets.data(), sizeof(id.idiag_src));
    std::memcpy(id.idiag_dst, flow.remote.address.octets.data(), sizeof(id.idiag_dst));
    id.idiag_cookie[0] = static_cast<uint32_t>(cookie);
    id.idiag_cookie[1] = static_cast<uint32_t>(cookie >> 32);
    const uint8_t family = flow.local.address.family == Family::kV4 ? AF_INET : AF_INET6;
    auto done = DestroyOne(socket_, flow.protocol, family, id);
    if (done) return {};
    // Anything else may come of an address that changed, or of a socket bound to an interface.
    if (done.error().number == EOPNOTSUPP || done.error().number == EPERM) {
      return NoDestroy(done.error());
    }
  }
  std::optional<inet_diag_msg> found;
  auto dumped = DumpSockets(socket_, flow.protocol, [&](std::span<const uint8_t> message) {
    const std::optional<inet_diag_msg> body = Body(message);
    if (body && CookieIn(body->id) == cookie) found = body;
    return body.has_value();
  });
  if (!found && !dumped) {
    return Fail(Reason::kKernelRefused, "find socket by cookie", dumped.error().ToString());
  }
  if (!found) return Fail(Reason::kClosed, "SOCK_DESTROY", "no socket with this cookie");
  auto done = DestroyOne(socket_, flow.protocol, found->idiag_family, found->id);
  if (done) return {};
  if (done.error().number == ENOENT || done.error().number == ESTALE) {
    return Fail(Reason::kClosed, "SOCK_DESTROY", "the socket went meanwhile");
  }
  return NoDestroy(done.error());
}

}  // namespace latchkey::broker
