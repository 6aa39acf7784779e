// The way that the kernel's routes have for a packet (RTM_GETROUTE).
#ifndef TOOLS_LATCHKEYD_KERNEL_ROUTE_FINDER_H_
#define TOOLS_LATCHKEYD_KERNEL_ROUTE_FINDER_H_

#include <cstdint>
#include <optional>

#include "policy/model/address.h"
#include "tools/latchkeyd/kernel/netlink_socket.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

class RouteFinder {
 public:
  // Implements KernelPort::RouteTo(). A socket that is bound to a device leaves by that one's
  // routes, and rules about users are asked for its owner; `fd` may be -1. Rules about ports and
  // protocols are not asked.
  std::optional<Route> Find(int fd, const Address& local, const Address& remote, uint32_t mark);

 private:
  std::optional<NetlinkSocket> socket_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_ROUTE_FINDER_H_
