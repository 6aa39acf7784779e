#include "tools/latchkeyd/kernel/datagram_regions.h"

#include <algorithm>
#include <cstring>

namespace latchkey::broker {
namespace {

static_assert(kMostBut == LATCHKEY_MOST_BUT);

uint32_t NeedOf(const DatagramRegion& region) {
  const uint32_t same_host = region.same_host ? LATCHKEY_SAME_HOST : 0;
  switch (region.need) {
    case DatagramRegion::Need::kPass:
      return LATCHKEY_PASS | same_host;
    case DatagramRegion::Need::kTag:
      return LATCHKEY_TAG | same_host;
    case DatagramRegion::Need::kDrop:
      break;
  }
  return LATCHKEY_DROP | same_host;
}

latchkey_region ValueOf(const DatagramRegion& region) {
  latchkey_region value{};
  value.need = NeedOf(region);
  std::ranges::fill(value.but, latchkey_ports{1, 0});
  for (size_t i = 0; i < region.but.size(); ++i) {
    value.but[i] = {region.but[i].low, region.but[i].high};
  }
  return value;
}

Result<void> Check(const DatagramRegion& region) {
  const Address& base = region.remote.base;
  if (base.family == Family::kNone || region.remote.length > base.Bits() ||
      (region.port != 0 && region.remote.length != base.Bits())) {
    return Fail(Reason::kBadRequest, "filter datagrams", "a region of no place");
  }
  if (region.but.empty()) return {};
  if (region.need != DatagramRegion::Need::kPass || region.port != 0) {
    return Fail(Reason::kBadRequest, "filter datagrams", "ports left out where none pass");
  }
  if (std::ranges::any_of(region.but, [](const PortRange& each) { return each.low > each.high; })) {
    return Fail(Reason::kBadRequest, "filter datagrams", "ports that are no range");
  }
  if (region.but.size() > kMostBut) {
    return Fail(Reason::kLimit, "filter datagrams", "too many ports left out");
  }
  return {};
}

}  // namespace

uint16_t FamilyOf(const Address& address) {
  return address.family == Family::kV4 ? LATCHKEY_V4 : LATCHKEY_V6;
}

void CopyTo(uint8_t (&to)[16], const Address& address) {
  std::memcpy(to, address.octets.data(), sizeof(to));
}

Result<RegionEntries> EntriesOf(uint64_t cookie, uint32_t generation,
                                const std::vector<DatagramRegion>& regions) {
  RegionEntries entries;
  for (const DatagramRegion& region : regions) {
    if (Result<void> good = Check(region); !good) return std::unexpected(good.error());
    const Address& base = region.remote.base;
    if (region.port != 0) {
      latchkey_exact_key key{};
      key.cookie = cookie;
      key.generation = generation;
      key.port = region.port;
      key.family = FamilyOf(base);
      CopyTo(key.address, base);
      entries.exact.emplace_back(key, NeedOf(region));
    } else {
      latchkey_region_key key{};
      key.prefix_bits = LATCHKEY_REGION_BITS + region.remote.length;
      key.generation = generation;
      key.cookie = cookie;
      key.family = FamilyOf(base);
      CopyTo(key.address, base);
      entries.prefixes.emplace_back(key, ValueOf(region));
    }
  }
  return entries;
}

}  // namespace latchkey::broker
