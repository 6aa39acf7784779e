#include "tools/latchkeyd/kernel/local_addresses.h"

#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "tools/latchkeyd/kernel/addresses.h"

namespace latchkey::broker {
namespace {

constexpr int kBuffer = 256 << 10;

struct FreeAddresses {
  void operator()(ifaddrs* list) const { freeifaddrs(list); }
};

}  // namespace

Result<LocalAddresses> LocalAddresses::Open() {
  Result<NetlinkEvents> events =
      NetlinkEvents::Open(NETLINK_ROUTE, {RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR}, kBuffer);
  if (!events) return std::unexpected(events.error());
  LocalAddresses result(std::move(*events));
  if (Result<void> read = result.Read(); !read) return std::unexpected(read.error());
  return result;
}

Result<void> LocalAddresses::Read() {
  ifaddrs* raw = nullptr;
  if (getifaddrs(&raw) != 0) {
    return Fail(Reason::kKernelRefused, "getifaddrs", std::strerror(errno));
  }
  const std::unique_ptr<ifaddrs, FreeAddresses> list(raw);
  std::set<Address> addresses;
  for (const ifaddrs* entry = list.get(); entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const int af = entry->ifa_addr->sa_family;
    if (af != AF_INET && af != AF_INET6) continue;
    const socklen_t length = af == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    sockaddr_storage storage{};
    std::memcpy(&storage, entry->ifa_addr, length);
    addresses.insert(FromSockaddr(storage, length).address);
  }
  addresses_ = std::move(addresses);
  stale_ = false;
  return {};
}

bool LocalAddresses::Contains(const Address& address) {
  if (address.IsLoopback()) return true;
  // Losing events, or the socket itself, means the same as an event: look again.
  const Result<bool> lost = events_.Drain([this](auto) { stale_ = true; });
  if (!lost || *lost) stale_ = true;
  if (stale_) (void)Read();
  return addresses_.contains(address);
}

}  // namespace latchkey::broker
