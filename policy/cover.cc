#include "policy/cover.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <utility>

namespace latchkey::policy {
namespace {

// A rule can name 64 of each thing, so a rule can be 64^4 regions: then nothing is said.
constexpr size_t kMostRegions = 1024;

// Flows of one direction and protocol. Ports from 0: one that is not known yet.
struct Region {
  Direction direction = Direction::kOut;
  uint8_t protocol = 0;
  std::array<Prefix, 2> ends;  // remote, local
  std::array<PortRange, 2> ports;
};

std::vector<Prefix> Ends(const std::vector<Prefix>& listed, Family family) {
  if (listed.empty()) return {Prefix{Address::AnyOf(family), 0}};
  std::vector<Prefix> ends;
  std::ranges::copy_if(listed, std::back_inserter(ends),
                       [family](const Prefix& prefix) { return prefix.base.family == family; });
  return ends;
}

std::vector<PortRange> Ports(const std::vector<PortRange>& listed) {
  return listed.empty() ? std::vector{PortRange{}} : listed;
}

// Nothing where there are too many.
std::optional<std::vector<Region>> RegionsOf(const Rule& rule) {
  std::vector<Region> regions;
  for (const Direction direction : {Direction::kOut, Direction::kIn}) {
    if (rule.direction != Direction::kBoth && rule.direction != direction) continue;
    for (const uint8_t protocol : {kProtocolTcp, kProtocolUdp}) {
      if (rule.protocol != 0 && rule.protocol != protocol) continue;
      for (const Family family : {Family::kV4, Family::kV6}) {
        for (const Prefix& remote : Ends(rule.remote, family)) {
          for (const Prefix& local : Ends(rule.local, family)) {
            for (const PortRange& remote_port : Ports(rule.remote_port)) {
              for (const PortRange& local_port : Ports(rule.local_port)) {
                if (regions.size() == kMostRegions) return std::nullopt;
                regions.push_back(
                    {direction, protocol, {remote, local}, {remote_port, local_port}});
              }
            }
          }
        }
      }
    }
  }
  return regions;
}

bool Overlap(const Region& a, const Region& b) {
  if (a.direction != b.direction || a.protocol != b.protocol) return false;
  return std::ranges::all_of(std::array{0U, 1U}, [&](size_t end) {
    return a.ends[end].Overlaps(b.ends[end]) && a.ports[end].Overlaps(b.ports[end]);
  });
}

// Adds to `rest` what `taken` leaves of `region`; they overlap.
void TakeFrom(Region region, const Region& taken, std::vector<Region>& rest) {
  const auto leave = [&rest](const Region& part) { rest.push_back(part); };
  for (const size_t end : {0U, 1U}) {
    for (const Prefix& outside : Subtract(region.ends[end], taken.ends[end])) {
      Region part = region;
      part.ends[end] = outside;
      leave(part);
    }
    if (taken.ends[end].length > region.ends[end].length) region.ends[end] = taken.ends[end];
    PortRange& ports = region.ports[end];
    if (ports.low < taken.ports[end].low) {
      Region part = region;
      part.ports[end].high = static_cast<uint16_t>(taken.ports[end].low - 1);
      leave(part);
      ports.low = taken.ports[end].low;
    }
    if (ports.high > taken.ports[end].high) {
      Region part = region;
      part.ports[end].low = static_cast<uint16_t>(taken.ports[end].high + 1);
      leave(part);
      ports.high = taken.ports[end].high;
    }
  }
}

// Takes a rule's regions from `open`; false when that cannot be said. `touched`: it had some.
bool Take(std::vector<Region>& open, const std::vector<Region>& regions, size_t& steps,
          bool& touched) {
  for (const Region& taken : regions) {
    std::vector<Region> rest;
    for (const Region& region : open) {
      if (steps == 0) return false;
      --steps;
      if (Overlap(region, taken)) {
        touched = true;
        TakeFrom(region, taken, rest);
      } else {
        rest.push_back(region);
      }
    }
    if (rest.size() > kMostRegions) return false;
    open = std::move(rest);
    if (open.empty()) break;
  }
  return true;
}

// False for most pairs of rules, and cheap.
bool MayShare(const Rule& a, const Rule& b) {
  const auto apart = [](auto x, auto y, auto any) { return x != any && y != any && x != y; };
  return !apart(a.direction, b.direction, Direction::kBoth) &&
         !apart(a.protocol, b.protocol, uint8_t{0}) && Share(a.remote, b.remote) &&
         Share(a.local, b.local) && Share(a.remote_port, b.remote_port) &&
         Share(a.local_port, b.local_port);
}

}  // namespace

std::vector<size_t> CoveredBy(const std::vector<Rule>& rules, size_t which, size_t& steps) {
  std::optional<std::vector<Region>> all;
  std::vector<Region> open;
  std::vector<size_t> takers;
  for (size_t earlier = 0; earlier < which; ++earlier) {
    if (!MayShare(rules[earlier], rules[which])) continue;
    const auto regions = RegionsOf(rules[earlier]);
    if (!regions) continue;
    if (!all) {
      all = RegionsOf(rules[which]);
      if (!all) return {};
      open = *all;
    }
    bool touched = false;
    if (!Take(open, *regions, steps, touched)) return {};
    if (touched) takers.push_back(earlier);
    if (!open.empty() || takers.empty()) continue;
    for (const size_t taker : takers) {
      std::vector<Region> alone = *all;
      if (Take(alone, *RegionsOf(rules[taker]), steps, touched) && alone.empty()) return {taker};
    }
    return takers;
  }
  return {};
}

}  // namespace latchkey::policy
