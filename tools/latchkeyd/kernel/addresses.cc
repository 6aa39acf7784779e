#include "tools/latchkeyd/kernel/addresses.h"

#include <netinet/in.h>

#include <cstring>

namespace latchkey::broker {

uint16_t ToAf(Family family) {
  switch (family) {
    case Family::kV4:
      return AF_INET;
    case Family::kV6:
      return AF_INET6;
    case Family::kNone:
      break;
  }
  return AF_UNSPEC;
}

Family FromAf(uint16_t af) {
  if (af == AF_INET) return Family::kV4;
  if (af == AF_INET6) return Family::kV6;
  return Family::kNone;
}

Address FromXfrm(uint16_t af, const xfrm_address_t& address) {
  Address result;
  result.family = FromAf(af);
  if (result.family == Family::kNone) return result;
  std::memcpy(result.octets.data(), &address, result.family == Family::kV4 ? 4 : 16);
  return result;
}

xfrm_address_t ToXfrm(const Address& address) {
  xfrm_address_t result{};
  static_assert(sizeof(result) == sizeof(address.octets));
  std::memcpy(&result, address.octets.data(), sizeof(result));
  return result;
}

SocketAddress FromSockaddr(const sockaddr_storage& address, socklen_t length) {
  SocketAddress result;
  if (address.ss_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in v4;
    std::memcpy(&v4, &address, sizeof(v4));
    result.address = Address::FromV4(&v4.sin_addr);
    result.port = ntohs(v4.sin_port);
  } else if (address.ss_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address, sizeof(v6));
    result.address = Address::FromV6(&v6.sin6_addr);
    result.port = ntohs(v6.sin6_port);
  }
  return result;
}

socklen_t ToSockaddr(const SocketAddress& address, bool v6_socket, uint32_t scope,
                     sockaddr_storage* out) {
  std::memset(out, 0, sizeof(*out));
  const Address& ip = address.address;
  if (ip.family == Family::kNone || (!v6_socket && ip.family == Family::kV6)) return 0;
  if (!v6_socket) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(address.port);
    std::memcpy(&v4.sin_addr, ip.octets.data(), 4);
    std::memcpy(out, &v4, sizeof(v4));
    return sizeof(v4);
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(address.port);
  v6.sin6_scope_id = scope;
  if (ip.family == Family::kV6) {
    std::memcpy(&v6.sin6_addr, ip.octets.data(), 16);
  } else {
    v6.sin6_addr.s6_addr[10] = v6.sin6_addr.s6_addr[11] = 0xff;
    std::memcpy(&v6.sin6_addr.s6_addr[12], ip.octets.data(), 4);
  }
  std::memcpy(out, &v6, sizeof(v6));
  return sizeof(v6);
}

}  // namespace latchkey::broker
