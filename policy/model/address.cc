#include "policy/model/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace latchkey {
namespace {

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// True when the first `bits` of both are equal; never for more bits than the family has.
bool SameBits(const Address& a, const Address& b, int bits) {
  if (bits > a.Bits()) return false;
  const auto whole = static_cast<size_t>(bits / 8);
  if (std::memcmp(a.octets.data(), b.octets.data(), whole) != 0) return false;
  const int rest = bits % 8;
  if (rest == 0) return true;
  const int mask = 0xff << (8 - rest);
  return ((a.octets.at(whole) ^ b.octets.at(whole)) & mask) == 0;
}

// As inet_ntop() writes it, which prints by way of stdio: a broker writes many for each latch.
std::string V4ToString(const Address& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  char* end = text.data();
  for (size_t i = 0; i < 4; ++i) {
    if (i > 0) *end++ = '.';
    end = std::to_chars(end, text.data() + text.size(), address.octets.at(i)).ptr;
  }
  return {text.data(), end};
}

}  // namespace

bool Address::IsAny() const {
  return std::ranges::all_of(octets, [](uint8_t octet) { return octet == 0; });
}

bool Address::IsLoopback() const {
  if (family == Family::kV4) return octets[0] == 127;
  if (family != Family::kV6) return false;
  return octets[15] == 1 &&
         std::all_of(octets.begin(), octets.end() - 1, [](uint8_t octet) { return octet == 0; });
}

std::string Address::ToString() const {
  char text[INET6_ADDRSTRLEN] = "";
  switch (family) {
    case Family::kV4:
      return V4ToString(*this);
    case Family::kV6:
      inet_ntop(AF_INET6, octets.data(), text, sizeof(text));
      return text;
    case Family::kNone:
      break;
  }
  return "-";
}

Address Address::FromV4(const void* four_octets) {
  Address address{Family::kV4, {}};
  std::memcpy(address.octets.data(), four_octets, 4);
  return address;
}

Address Address::FromV6(const void* sixteen_octets) {
  const auto* octets = static_cast<const uint8_t*>(sixteen_octets);
  if (std::equal(kMapped.begin(), kMapped.end(), octets)) return FromV4(octets + 12);
  Address address{Family::kV6, {}};
  std::memcpy(address.octets.data(), octets, 16);
  return address;
}

std::optional<Address> Address::Parse(std::string_view text) {
  const std::string copy(text);
  if (copy.size() != std::strlen(copy.c_str())) return std::nullopt;
  uint8_t octets[16];
  if (inet_pton(AF_INET, copy.c_str(), octets) == 1) return FromV4(octets);
  if (inet_pton(AF_INET6, copy.c_str(), octets) == 1) return FromV6(octets);
  return std::nullopt;
}

bool Prefix::Contains(const Address& address) const {
  return base.family != Family::kNone && base.family == address.family &&
         SameBits(base, address, length);
}

bool Prefix::Overlaps(const Prefix& other) const {
  return base.family != Family::kNone && base.family == other.base.family &&
         SameBits(base, other.base, std::min(length, other.length));
}

std::string Prefix::ToString() const { return base.ToString() + "/" + std::to_string(length); }

std::optional<Prefix> Prefix::Parse(std::string_view text) {
  const size_t slash = text.find('/');
  const std::optional<Address> address = Address::Parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  Prefix prefix{*address, static_cast<uint8_t>(address->Bits())};
  if (slash == std::string_view::npos) return prefix;
  const std::string_view digits = text.substr(slash + 1);
  int length = -1;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), length);
  if (error != std::errc{} || end != digits.end() || length < 0 || length > address->Bits()) {
    return std::nullopt;
  }
  // "::ffff:10.0.0.0/104" would mean another thing than it says once unmapped.
  if (address->family == Family::kV4 && text.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  Address masked = *address;
  for (int bit = length; bit < address->Bits(); ++bit) {
    masked.octets.at(static_cast<size_t>(bit / 8)) &= static_cast<uint8_t>(~(0x80 >> (bit % 8)));
  }
  if (masked != *address) return std::nullopt;
  prefix.length = static_cast<uint8_t>(length);
  return prefix;
}

std::string SocketAddress::ToString() const {
  if (address.family == Family::kNone) return "*";
  if (address.family == Family::kV6) {
    return "[" + address.ToString() + "]:" + std::to_string(port);
  }
  return address.ToString() + ":" + std::to_string(port);
}

SocketAddress FromWire(const wire::Endpoint& endpoint) {
  SocketAddress result;
  if (endpoint.family == AF_INET) result.address = Address::FromV4(endpoint.address);
  if (endpoint.family == AF_INET6) result.address = Address::FromV6(endpoint.address);
  if (result.address.family != Family::kNone) result.port = endpoint.port;
  return result;
}

wire::Endpoint ToWire(const SocketAddress& address) {
  wire::Endpoint endpoint{};
  if (address.address.family == Family::kNone) return endpoint;
  endpoint.family = address.address.family == Family::kV4 ? AF_INET : AF_INET6;
  endpoint.port = address.port;
  std::memcpy(endpoint.address, address.address.octets.data(), sizeof(endpoint.address));
  return endpoint;
}

std::vector<Prefix> Subtract(const Prefix& from, const Prefix& hole) {
  if (!from.Overlaps(hole)) return {from};
  std::vector<Prefix> rest;
  Prefix current = from;
  // Walk down towards the hole; at every step the half it does not lie in remains.
  while (current.length < hole.length) {
    Prefix other = current;
    ++current.length;
    other.length = current.length;
    const int bit = current.length - 1;
    const uint8_t mask = static_cast<uint8_t>(0x80 >> (bit % 8));
    const bool hole_bit = (hole.base.octets.at(static_cast<size_t>(bit / 8)) & mask) != 0;
    uint8_t& mine = current.base.octets.at(static_cast<size_t>(bit / 8));
    uint8_t& theirs = other.base.octets.at(static_cast<size_t>(bit / 8));
    mine = static_cast<uint8_t>(hole_bit ? mine | mask : mine & ~mask);
    theirs = static_cast<uint8_t>(hole_bit ? theirs & ~mask : theirs | mask);
    rest.push_back(other);
  }
  return rest;
}

}  // namespace latchkey
