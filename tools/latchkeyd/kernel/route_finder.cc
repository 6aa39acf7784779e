#include "tools/latchkeyd/kernel/route_finder.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace latchkey::broker {
namespace {

void Append(std::vector<uint8_t>& octets, uint16_t type, std::span<const uint8_t> value) {
  rtattr attribute{};
  attribute.rta_type = type;
  attribute.rta_len = static_cast<uint16_t>(RTA_LENGTH(value.size()));
  const size_t at = octets.size();
  octets.resize(at + RTA_SPACE(value.size()));
  std::memcpy(octets.data() + at, &attribute, sizeof(attribute));
  std::memcpy(octets.data() + at + RTA_LENGTH(0), value.data(), value.size());
}

void Append(std::vector<uint8_t>& octets, uint16_t type, uint32_t value) {
  uint8_t raw[sizeof(value)];
  std::memcpy(raw, &value, sizeof(value));
  Append(octets, type, std::span<const uint8_t>(raw));
}

// What a route says; without a device where it is none.
Route RouteOf(std::span<const uint8_t> message) {
  Route route;
  nlmsghdr header;
  rtmsg body;
  if (message.size() < NLMSG_SPACE(sizeof(body))) return route;
  std::memcpy(&header, message.data(), sizeof(header));
  std::memcpy(&body, message.data() + NLMSG_HDRLEN, sizeof(body));
  if (header.nlmsg_type != RTM_NEWROUTE || header.nlmsg_len > message.size()) return route;
  std::span<const uint8_t> rest = message.first(header.nlmsg_len);
  rest = rest.subspan(std::min(rest.size(), size_t{NLMSG_SPACE(sizeof(body))}));
  while (rest.size() >= sizeof(rtattr)) {
    rtattr attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > rest.size()) break;
    if (attribute.rta_type == RTA_OIF && attribute.rta_len >= RTA_LENGTH(sizeof(route.index))) {
      std::memcpy(&route.index, rest.data() + RTA_LENGTH(0), sizeof(route.index));
    }
    rest = rest.subspan(std::min(rest.size(), size_t{RTA_ALIGN(attribute.rta_len)}));
  }
  char name[IF_NAMESIZE] = {};
  if (route.index != 0 && if_indextoname(route.index, name) != nullptr) route.device = name;
  route.stays = body.rtm_type == RTN_LOCAL;
  return route;
}

}  // namespace

std::optional<Route> RouteFinder::Find(int fd, const Address& local, const Address& remote,
                                       uint32_t mark) {
  if (remote.family == Family::kNone) return std::nullopt;
  if (!socket_) {
    Result<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_ROUTE);
    if (!socket) return std::nullopt;
    socket_.emplace(std::move(*socket));
  }
  const size_t octets = remote.family == Family::kV6 ? 16 : 4;
  nlmsghdr header{};
  rtmsg body{};
  header.nlmsg_type = RTM_GETROUTE;
  body.rtm_family = remote.family == Family::kV6 ? AF_INET6 : AF_INET;
  body.rtm_dst_len = static_cast<uint8_t>(octets * 8);
  std::vector<uint8_t> message(NLMSG_SPACE(sizeof(body)));
  Append(message, RTA_DST, std::span<const uint8_t>(remote.octets.data(), octets));
  if (local.family == remote.family && !local.IsAny()) {
    body.rtm_src_len = body.rtm_dst_len;
    Append(message, RTA_SRC, std::span<const uint8_t>(local.octets.data(), octets));
  }
  Append(message, RTA_MARK, mark);
  int bound = 0;
  socklen_t length = sizeof(bound);
  if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &bound, &length) == 0 && bound > 0) {
    Append(message, RTA_OIF, static_cast<uint32_t>(bound));
  }
  struct stat owner {};
  if (fd >= 0 && fstat(fd, &owner) == 0) Append(message, RTA_UID, owner.st_uid);
  header.nlmsg_len = static_cast<uint32_t>(message.size());
  std::memcpy(message.data(), &header, sizeof(header));
  std::memcpy(message.data() + NLMSG_HDRLEN, &body, sizeof(body));
  Route route;
  const auto done = socket_->Get(message, [&route](std::span<const uint8_t> answer) {
    route = RouteOf(answer);
    return !route.device.empty();
  });
  if (!done || route.device.empty()) return std::nullopt;
  return route;
}

}  // namespace latchkey::broker
