#include "policy/model/flow.h"

#include <algorithm>
#include <utility>

namespace latchkey {
namespace {

// What is not known yet might match (flow.h).
bool PrefixTakes(const Prefix& prefix, const Address& address) {
  return prefix.base.family == Family::kNone || address.family == Family::kNone ||
         prefix.Contains(address);
}

bool PortTakes(uint16_t wanted, uint16_t mask, uint16_t port) {
  return port == 0 || ((wanted ^ port) & mask) == 0;
}

// True when nothing that is not known yet was needed for the match.
bool Certain(const Selector& selector, const SocketAddress& from, const SocketAddress& to) {
  const auto address = [](const Prefix& prefix, const Address& end) {
    return end.family != Family::kNone || prefix.base.family == Family::kNone || prefix.length == 0;
  };
  return address(selector.source, from.address) && address(selector.destination, to.address) &&
         (from.port != 0 || selector.source_mask == 0) &&
         (to.port != 0 || selector.destination_mask == 0);
}

SystemView ViewOf(const SpdEntry& entry) {
  if (entry.block) return SystemView{SystemAction::kDiscard, 0, &entry};
  if (entry.bare) return {};
  return SystemView{SystemAction::kProtect, entry.reqid, &entry};
}

}  // namespace

bool Flow::SameHost() const {
  return remote.address.IsLoopback() ||
         (remote.address.family != Family::kNone && remote.address == local.address);
}

bool Selector::OfOneFlow() const {
  const auto whole = [this](const Prefix& prefix) {
    return prefix.base.family == family && prefix.length == prefix.base.Bits();
  };
  return family != Family::kNone && whole(source) && whole(destination) && protocol != 0 &&
         source_mask == 0xffff && destination_mask == 0xffff;
}

Selector Mirrored(const Selector& selector) {
  Selector mirrored = selector;
  std::swap(mirrored.source, mirrored.destination);
  std::swap(mirrored.source_port, mirrored.destination_port);
  std::swap(mirrored.source_mask, mirrored.destination_mask);
  return mirrored;
}

bool Selector::Matches(uint8_t packet_protocol, const SocketAddress& from,
                       const SocketAddress& to) const {
  const Family packet =
      to.address.family != Family::kNone ? to.address.family : from.address.family;
  if (family != Family::kNone && packet != Family::kNone && family != packet) return false;
  if (protocol != 0 && protocol != packet_protocol) return false;
  return PrefixTakes(source, from.address) && PrefixTakes(destination, to.address) &&
         PortTakes(source_port, source_mask, from.port) &&
         PortTakes(destination_port, destination_mask, to.port);
}

SystemView LookUpSpd(const std::vector<SpdEntry>& spd, const Flow& flow, bool out) {
  const SocketAddress& from = out ? flow.local : flow.remote;
  const SocketAddress& to = out ? flow.remote : flow.local;
  std::vector<const SpdEntry*> matches;
  for (const SpdEntry& entry : spd) {
    if (entry.dir != (out ? 1 : 0) || entry.mark_mask != 0 || entry.if_id != 0) continue;
    if (entry.selector.Matches(flow.protocol, from, to)) matches.push_back(&entry);
  }
  // The kernel dumps the newest entry first (net/xfrm/xfrm_policy.c, __xfrm_policy_link) and
  // numbers them upwards, so age is told by the index and not by the place.
  std::ranges::stable_sort(matches, [](const SpdEntry* a, const SpdEntry* b) {
    return std::pair(a->priority, a->index) < std::pair(b->priority, b->index);
  });
  SystemView strictest;
  bool others = false;
  for (const SpdEntry* entry : matches) {
    const SystemView view = ViewOf(*entry);
    const bool certain = Certain(entry->selector, from, to);
    // What protects one flow, and hardly this one, does not say under which SA.
    const bool other = !certain && entry->selector.OfOneFlow();
    if (view.action > strictest.action || (view.action == strictest.action && others && !other)) {
      strictest = view;
      others = other;
    }
    if (certain) break;
  }
  if (others) strictest.reqid = 0;
  return strictest;
}

}  // namespace latchkey
