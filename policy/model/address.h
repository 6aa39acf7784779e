// IP addresses, prefixes, endpoints and port ranges.
//
// A v4-mapped IPv6 address is always held as IPv4: what the kernel's XFRM sees of such a flow is
// IPv4, and so must every decision about it.
#ifndef POLICY_MODEL_ADDRESS_H_
#define POLICY_MODEL_ADDRESS_H_

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shim/wire/messages.h"

namespace latchkey {

enum class Family : uint8_t { kNone = 0, kV4 = 4, kV6 = 6 };

struct Address {
  Family family = Family::kNone;
  std::array<uint8_t, 16> octets{};  // v4 in the first four, the rest zero

  auto operator<=>(const Address&) const = default;
  bool IsAny() const;       // 0.0.0.0 or ::
  bool IsLoopback() const;  // 127/8 or ::1
  int Bits() const { return family == Family::kV4 ? 32 : 128; }
  std::string ToString() const;

  // Reads "10.9.0.1" or "fd00::1"; "::ffff:10.9.0.1" becomes 10.9.0.1. Nothing for anything else.
  static std::optional<Address> Parse(std::string_view text);
  static Address AnyOf(Family family) { return Address{family, {}}; }
  // Takes 4 or 16 octets in network order; unmaps v4-mapped.
  static Address FromV4(const void* four_octets);
  static Address FromV6(const void* sixteen_octets);
};

struct Prefix {
  Address base;
  uint8_t length = 0;

  auto operator<=>(const Prefix&) const = default;
  bool Contains(const Address& address) const;  // never across families
  bool Overlaps(const Prefix& other) const;
  std::string ToString() const;

  // Reads "10.0.0.0/8", "fd00::/8" or a bare address. Host bits set below the length are an error
  // (nothing returned): "10.0.0.1/8" is more likely a slip than a wish.
  static std::optional<Prefix> Parse(std::string_view text);
};

// Returns `from` without `hole`, as prefixes that do not overlap.
std::vector<Prefix> Subtract(const Prefix& from, const Prefix& hole);

struct PortRange {
  uint16_t low = 0;
  uint16_t high = 65535;

  auto operator<=>(const PortRange&) const = default;
  bool Contains(uint16_t port) const { return low <= port && port <= high; }
  bool Overlaps(const PortRange& other) const { return low <= other.high && other.low <= high; }
};

// True when some address, or some port, is in both; an empty list is all of them.
template <typename T>
bool Share(const std::vector<T>& one, const std::vector<T>& other) {
  return one.empty() || other.empty() || std::ranges::any_of(one, [&other](const T& each) {
           return std::ranges::any_of(other,
                                      [&each](const T& more) { return each.Overlaps(more); });
         });
}

struct SocketAddress {
  Address address;
  uint16_t port = 0;  // host order

  auto operator<=>(const SocketAddress&) const = default;
  std::string ToString() const;  // "10.9.0.1:80", "[fd00::1]:80"
};

// To and from the wire; a wire endpoint of family 0 or an unknown one is kNone.
SocketAddress FromWire(const wire::Endpoint& endpoint);
wire::Endpoint ToWire(const SocketAddress& address);

}  // namespace latchkey

#endif  // POLICY_MODEL_ADDRESS_H_
