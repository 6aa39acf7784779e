#include "tools/latchkeyd/latch/held.h"

#include <algorithm>

namespace latchkey::broker {

Prefix Host(const Address& address) {
  return Prefix{address, static_cast<uint8_t>(address.Bits())};
}

Guard DatagramGuard(const Prefix& source, uint16_t port, const SocketAddress& remote,
                    uint32_t mark) {
  Guard guard;
  guard.mark = mark;
  guard.selector.family = remote.address.family;
  guard.selector.source = source;
  guard.selector.destination = Host(remote.address);
  guard.selector.protocol = kProtocolUdp;
  guard.selector.source_port = port;
  guard.selector.source_mask = 0xffff;
  guard.selector.destination_port = remote.port;
  guard.selector.destination_mask = remote.port != 0 ? 0xffff : 0;
  return guard;
}

Guard TagProof(const Sa& sa, uint32_t tag, uint32_t mask) {
  Guard guard;
  guard.out = false;
  guard.action = RequireAction(sa.key.protocol);
  guard.reqid = sa.reqid;
  guard.priority = kProofPriority;
  guard.mark = tag;
  guard.unset = mask & ~tag;
  guard.selector.family = sa.source.family;
  guard.selector.source = Host(sa.source);
  guard.selector.destination = Host(sa.key.destination);
  guard.selector.protocol = kProtocolUdp;
  return guard;
}

bool SharePlace(const SocketAddress& a, const SocketAddress& b) {
  return a.port == b.port && (a.address.IsAny() || b.address.IsAny() || a.address == b.address);
}

DatagramRegion::Need NeedAt(const Held& held, const SocketAddress& remote) {
  for (const DatagramRegion& region : held.regions) {
    if (!region.remote.Contains(remote.address)) continue;
    const bool excepted = std::ranges::any_of(
        region.but, [&](const PortRange& range) { return range.Contains(remote.port); });
    return excepted ? DatagramRegion::Need::kDrop : region.need;
  }
  return DatagramRegion::Need::kDrop;
}

bool PortsMatter(const Held& held, const Address& address) {
  return std::ranges::any_of(held.asked,
                             [&](const Prefix& prefix) { return prefix.Contains(address); });
}

bool IsIncoming(const policy::Verdict& verdict) {
  return verdict.rule != nullptr && verdict.rule->direction != Direction::kOut;
}

size_t CountAsked(const Held& held) {
  return static_cast<size_t>(
      std::ranges::count_if(held.peers, [](const auto& each) { return each.second.asked; }));
}

std::vector<DatagramRegion> RegionsOf(const Held& held) {
  using Need = DatagramRegion::Need;
  std::vector<DatagramRegion> regions = held.regions;
  for (const auto& [remote, peer] : held.peers) {
    const Need need = peer.clear ? Need::kPass : Need::kTag;
    if (!peer.asked || NeedAt(held, remote) == need) continue;
    regions.push_back(
        {Host(remote.address), remote.port, peer.same_host ? Need::kDrop : need, peer.same_host});
  }
  return regions;
}

}  // namespace latchkey::broker
