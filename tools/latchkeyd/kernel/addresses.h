// Our addresses to and from the kernel's: sockaddr and xfrm_address_t.
#ifndef TOOLS_LATCHKEYD_KERNEL_ADDRESSES_H_
#define TOOLS_LATCHKEYD_KERNEL_ADDRESSES_H_

#include <linux/xfrm.h>
#include <sys/socket.h>

#include <cstdint>

#include "policy/model/address.h"

namespace latchkey::broker {

// Returns AF_INET, AF_INET6 or AF_UNSPEC.
uint16_t ToAf(Family family);
// Returns kNone for every other family.
Family FromAf(uint16_t af);

// Reads an address of `af`. What XFRM holds as IPv6 stays IPv6: a mapped address is not unmapped,
// since the prefix lengths beside it count from the IPv6 one. kNone for another family.
Address FromXfrm(uint16_t af, const xfrm_address_t& address);
xfrm_address_t ToXfrm(const Address& address);

// Reads a socket's address, a v4-mapped one as IPv4; kNone for another family or a short one.
SocketAddress FromSockaddr(const sockaddr_storage& address, socklen_t length);

// Writes `address` for a socket of AF_INET6 (`v6_socket`; an IPv4 one is mapped) or of AF_INET.
// Returns its length; 0 when the socket cannot hold it.
socklen_t ToSockaddr(const SocketAddress& address, bool v6_socket, uint32_t scope,
                     sockaddr_storage* out);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_ADDRESSES_H_
