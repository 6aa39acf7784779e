#include "tools/latchkeyd/kernel/datagram_regions.h"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <type_traits>

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

// An order by the octets: any will do.
int Order(const latchkey_exact_key& one, const latchkey_exact_key& other) {
  static_assert(std::has_unique_object_representations_v<latchkey_exact_key>);
  return std::memcmp(&one, &other, sizeof(one));
}

void PutInOrder(ExactEntries& entries) {
  std::ranges::reverse(entries);
  std::ranges::stable_sort(entries, [](const auto& one, const auto& other) {
    return Order(one.first, other.first) < 0;
  });
  const auto same = std::ranges::unique(entries, [](const auto& one, const auto& other) {
    return Order(one.first, other.first) == 0;
  });
  entries.erase(same.begin(), same.end());
}

bool SamePrefixes(const RegionEntries& one, const RegionEntries& other) {
  static_assert(std::has_unique_object_representations_v<latchkey_region_key>);
  static_assert(std::has_unique_object_representations_v<latchkey_region>);
  return std::ranges::equal(one.prefixes, other.prefixes, [](const auto& a, const auto& b) {
    return std::memcmp(&a.first, &b.first, sizeof(a.first)) == 0 &&
           std::memcmp(&a.second, &b.second, sizeof(a.second)) == 0;
  });
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
  PutInOrder(entries.exact);
  return entries;
}

std::optional<ExactChange> ChangeOf(const RegionEntries& from, const RegionEntries& to) {
  if (from.keys_alone || to.keys_alone || !SamePrefixes(from, to)) return std::nullopt;
  ExactChange change;
  auto old = from.exact.begin();
  for (const auto& entry : to.exact) {
    for (; old != from.exact.end() && Order(old->first, entry.first) < 0; ++old) {
      change.go.push_back(*old);
    }
    if (old == from.exact.end() || Order(old->first, entry.first) != 0) {
      change.come.push_back(entry);
    } else if (old++->second != entry.second) {
      return std::nullopt;
    }
  }
  change.go.insert(change.go.end(), old, from.exact.end());
  return change;
}

}  // namespace latchkey::broker
