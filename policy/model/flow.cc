#include "policy/model/flow.h"

namespace latchkey {
namespace {

bool PrefixTakes(const Prefix& prefix, const Address& address) {
  return prefix.base.family == Family::kNone || prefix.Contains(address);
}

bool PortTakes(uint16_t wanted, uint16_t mask, uint16_t port) {
  return port == 0 || ((wanted ^ port) & mask) == 0;
}

}  // namespace

bool Flow::SameHost() const {
  return remote.address.IsLoopback() ||
         (remote.address.family != Family::kNone && remote.address == local.address);
}

bool Selector::Matches(uint8_t packet_protocol, const SocketAddress& from,
                       const SocketAddress& to) const {
  if (family != Family::kNone && family != to.address.family) return false;
  if (protocol != 0 && protocol != packet_protocol) return false;
  return PrefixTakes(source, from.address) && PrefixTakes(destination, to.address) &&
         PortTakes(source_port, source_mask, from.port) &&
         PortTakes(destination_port, destination_mask, to.port);
}

SystemView LookUpSpd(const std::vector<SpdEntry>& spd, const Flow& flow, bool out) {
  const SocketAddress& from = out ? flow.local : flow.remote;
  const SocketAddress& to = out ? flow.remote : flow.local;
  const SpdEntry* best = nullptr;
  for (const SpdEntry& entry : spd) {
    if (entry.dir != (out ? 1 : 0) || entry.mark_mask != 0 || entry.if_id != 0) continue;
    if (!entry.selector.Matches(flow.protocol, from, to)) continue;
    if (best == nullptr || entry.priority < best->priority) best = &entry;
  }
  if (best == nullptr) return {};
  if (best->block) return SystemView{SystemAction::kDiscard, 0};
  if (best->bare) return {};
  return SystemView{SystemAction::kProtect, best->reqid};
}

}  // namespace latchkey
