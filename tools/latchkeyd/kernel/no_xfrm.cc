#include "tools/latchkeyd/kernel/no_xfrm.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

constexpr unsigned kLoopback = 1;  // LOOPBACK_IFINDEX, in every network namespace

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};
using Folder = std::unique_ptr<DIR, CloseFolder>;

std::string NameOf(unsigned index) {
  char name[IF_NAMESIZE] = {};
  return if_indextoname(index, name) != nullptr ? name : "";
}

// A device that went meanwhile, or a kernel without the setting, has it not.
bool IsSet(int folder, const std::string& path) {
  const UniqueFd fd(openat(folder, path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[16];
  if (!fd) return false;
  const ssize_t length = read(fd.get(), text, sizeof(text));
  return length > 0 && std::string(text, static_cast<size_t>(length)) != "0\n";
}

// Adds to `found` who has the setting of this name. `folder`: of a family's devices.
Result<void> AddWith(const std::string& folder, const std::string& setting,
                     const std::string& loopback, std::set<std::string>& found) {
  const Folder all(opendir(folder.c_str()));
  if (all == nullptr) {
    return Fail(Reason::kKernelRefused, "read settings of devices",
                folder + ": " + std::strerror(errno));
  }
  while (const dirent* each = readdir(all.get())) {
    const std::string name = each->d_name;
    if (name == "." || name == ".." || name == "default" || name == loopback) continue;
    if (IsSet(dirfd(all.get()), name + "/" + setting)) found.insert(name);
  }
  return {};
}

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

// The device of a route; 0: none.
uint32_t DeviceOf(std::span<const uint8_t> message) {
  nlmsghdr header;
  if (message.size() < sizeof(header) + sizeof(rtmsg)) return 0;
  std::memcpy(&header, message.data(), sizeof(header));
  if (header.nlmsg_type != RTM_NEWROUTE || header.nlmsg_len > message.size()) return 0;
  std::span<const uint8_t> rest = message.first(header.nlmsg_len);
  rest = rest.subspan(std::min(rest.size(), sizeof(header) + NLMSG_ALIGN(sizeof(rtmsg))));
  while (rest.size() >= sizeof(rtattr)) {
    rtattr attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > rest.size()) break;
    uint32_t value = 0;
    if (attribute.rta_type == RTA_OIF && attribute.rta_len >= RTA_LENGTH(sizeof(value))) {
      std::memcpy(&value, rest.data() + RTA_LENGTH(0), sizeof(value));
      return value;
    }
    rest = rest.subspan(std::min(rest.size(), size_t{RTA_ALIGN(attribute.rta_len)}));
  }
  return 0;
}

}  // namespace

Result<NoXfrm> ReadNoXfrm(const std::string& settings) {
  const std::string loopback = NameOf(kLoopback);
  const std::string v4 = settings + "/ipv4/conf";
  const std::string v6 = settings + "/ipv6/conf";
  NoXfrm found;
  Result<void> done = AddWith(v4, "disable_xfrm", loopback, found.out);
  if (done) done = AddWith(v4, "disable_policy", loopback, found.in_v4);
  // Without IPv6 there is no such folder.
  if (done && access(v6.c_str(), F_OK) == 0) {
    done = AddWith(v6, "disable_policy", loopback, found.in_v6);
  }
  if (!done) return std::unexpected(done.error());
  return found;
}

std::optional<std::string> RouteFinder::DeviceTo(int fd, const Address& local,
                                                 const Address& remote, uint32_t mark) {
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
  const std::span<const uint8_t> to(remote.octets.data(), octets);
  Append(message, RTA_DST, to);
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
  header.nlmsg_len = static_cast<uint32_t>(message.size());
  std::memcpy(message.data(), &header, sizeof(header));
  std::memcpy(message.data() + NLMSG_HDRLEN, &body, sizeof(body));
  uint32_t index = 0;
  const auto done = socket_->Get(message, [&index](std::span<const uint8_t> answer) {
    index = DeviceOf(answer);
    return index != 0;
  });
  std::string name = done && index != 0 ? NameOf(index) : "";
  if (name.empty()) return std::nullopt;
  return name;
}

}  // namespace latchkey::broker
