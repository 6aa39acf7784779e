// What is done to one socket through a descriptor of it: look at it, set its policies and mark.
#ifndef TOOLS_LATCHKEYD_KERNEL_SOCKET_OPS_H_
#define TOOLS_LATCHKEYD_KERNEL_SOCKET_OPS_H_

#include <cstdint>
#include <optional>

#include "policy/model/error.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// Returns the cookie of the caller's network namespace (SO_NETNS_COOKIE of a socket of its own,
// Linux 5.14). Nothing where the kernel has none: then no socket counts as the broker's
// namespace's.
std::optional<uint64_t> OwnNetnsCookie();

// Returns SO_COOKIE of a socket; nothing for a descriptor that is none.
std::optional<uint64_t> CookieOf(int fd);

// Implements KernelPort::Inspect(). `netns`: as OwnNetnsCookie() gave it.
Result<SocketFacts> InspectSocket(int fd, std::optional<uint64_t> netns);

// Implements KernelPort::SetPolicy(). IN is set first; when OUT then fails, IN stays: a caller that
// is told of the error refuses the flow. A block tries both directions whatever the first says.
// Options go to the IPv6 level of an AF_INET6 socket whatever the policy's family (a v4-mapped flow
// meets a policy of IPv4 there: KERNEL.md 1.4). kBadRequest for an IPv6 policy on an IPv4 socket:
// it would never match, and so leave the flow to the SPD.
//
// A socket holds one policy a direction, and a policy one family: on a dual-stack socket kBlock
// closes the family it names; what the other could send still bears the guard mark.
Result<void> SetSocketPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy);

// Implements KernelPort::SetMark(). What is outside `mask` becomes what `facts` say it was. A UDP
// socket that gets the guard bit is not given several datagrams as one any more (UDP_GRO).
Result<void> SetSocketMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask);

// Implements KernelPort::SharesPort().
bool SharesItsPort(int fd);

// Implements KernelPort::AwaitArrivals().
Result<void> AwaitPacketsOnTheWay();

// Implements KernelPort::TellMarks().
Result<void> TellSocketMarks(int fd, bool on);

// Implements KernelPort::SourceAddress() and IsBroadcast(). The sockets that ask have a policy that
// lets them past the SPD, so that asking triggers no key exchange; they are kept, since making one
// is what takes time.
class SourceFinder {
 public:
  // `scope`: interface of a link-local IPv6 address, else 0.
  std::optional<Address> Find(const Address& remote, uint32_t scope);

  // The kernel refuses to connect a socket to such an address that has not asked for SO_BROADCAST,
  // and one that has it does not.
  bool IsBroadcast(const Address& remote);

 private:
  bool Open(Family family);

  UniqueFd v4_;
  UniqueFd v6_;
};

// Implements KernelPort::BindAny().
Result<void> BindToAny(int fd, const SocketFacts& facts);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_SOCKET_OPS_H_
