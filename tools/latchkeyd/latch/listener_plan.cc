#include "tools/latchkeyd/latch/listener_plan.h"

#include <algorithm>

namespace latchkey::broker {
namespace {

constexpr size_t kMaxRegions = 512;

// True where peers may come in clear, by the rule or by the system.
bool MayBeClear(Need need) {
  return need == Need::kOptional || need == Need::kBypass || need == Need::kSystem;
}

bool SpeaksOfListener(const policy::Rule& rule, const SocketAddress& local, bool wildcard) {
  if (rule.direction == Direction::kOut) return false;
  if (rule.protocol != 0 && rule.protocol != kProtocolTcp) return false;
  if (!rule.remote_port.empty()) return false;
  if (!rule.local_port.empty() &&
      std::ranges::none_of(rule.local_port,
                           [&](const PortRange& range) { return range.Contains(local.port); })) {
    return false;
  }
  return rule.local.empty() || wildcard ||
         std::ranges::any_of(rule.local,
                             [&](const Prefix& prefix) { return prefix.Contains(local.address); });
}

// What is still undecided of the address space, after `taken` was decided.
void Take(std::vector<Prefix>& open, const Prefix& taken) {
  std::vector<Prefix> rest;
  for (const Prefix& prefix : open) {
    const std::vector<Prefix> parts = Subtract(prefix, taken);
    rest.insert(rest.end(), parts.begin(), parts.end());
  }
  open = std::move(rest);
}

// The part of `open` that lies in `wanted`.
std::vector<Prefix> Within(const std::vector<Prefix>& open, const Prefix& wanted) {
  std::vector<Prefix> parts;
  for (const Prefix& prefix : open) {
    if (!prefix.Overlaps(wanted)) continue;
    parts.push_back(prefix.length >= wanted.length ? prefix : wanted);
  }
  return parts;
}

Guard InGuard(const SocketAddress& local, Family family, const Prefix& remote, Guard::Action action,
              Mode mode = Mode::kTransport) {
  Guard guard;
  guard.out = false;
  guard.action = action;
  if (Requires(action)) guard.mode = mode;
  guard.selector.family = family;
  guard.selector.source = remote;
  guard.selector.destination = Everything(family);
  if (!local.address.IsAny()) {
    guard.selector.destination = Prefix{local.address, static_cast<uint8_t>(local.address.Bits())};
  }
  guard.selector.protocol = kProtocolTcp;
  guard.selector.destination_port = local.port;
  guard.selector.destination_mask = 0xffff;
  return guard;
}

// Holds a region whose peers must be protected. Those of tunnels have entries of their own, which
// come before this one.
Guard HoldIn(const SocketAddress& local, const Region& region) {
  const Family family = region.remote.base.family;
  if (region.mode != Mode::kTunnel) {
    return InGuard(local, family, region.remote, RequireAction(region.protocol), region.mode);
  }
  Guard guard = InGuard(local, family, region.remote, Guard::Action::kBlock);
  guard.priority = kTunnelPriority;
  return guard;
}

Guard OutHole(const SocketAddress& local, Family family, const Prefix& remote, uint32_t mark,
              uint8_t protocol) {
  Guard guard = InGuard(local, family, remote, Guard::Action::kAllow);
  guard.selector.protocol = protocol;
  guard.out = true;
  guard.mark = mark;
  std::swap(guard.selector.source, guard.selector.destination);
  std::swap(guard.selector.source_port, guard.selector.destination_port);
  std::swap(guard.selector.source_mask, guard.selector.destination_mask);
  return guard;
}

bool Overlaps(const Selector& a, const Selector& b) {
  if (a.family != Family::kNone && b.family != Family::kNone && a.family != b.family) return false;
  const auto apart = [](const Prefix& x, const Prefix& y) {
    return x.base.family != Family::kNone && y.base.family != Family::kNone && !x.Overlaps(y);
  };
  if (apart(a.source, b.source) || apart(a.destination, b.destination)) return false;
  if (a.protocol != 0 && b.protocol != 0 && a.protocol != b.protocol) return false;
  const uint16_t source = a.source_mask & b.source_mask;
  const uint16_t destination = a.destination_mask & b.destination_mask;
  return (a.source_port & source) == (b.source_port & source) &&
         (a.destination_port & destination) == (b.destination_port & destination);
}

// True when an entry of somebody else's would let clear packets past `guard`: of two entries with
// equal priority the older wins, and ours is the newer.
bool Beaten(const Guard& guard, const std::vector<SpdEntry>& spd) {
  return std::ranges::any_of(spd, [&](const SpdEntry& entry) {
    return entry.dir == (guard.out ? 1 : 0) && entry.priority <= guard.priority && !entry.block &&
           entry.bare && entry.mark_mask == 0 && entry.if_id == 0 &&
           Overlaps(entry.selector, guard.selector);
  });
}

// The strictest of what the SPD asks of packets that an outgoing selector speaks of (`in`: of those
// that come back).
SystemAction Strictest(const Selector& out, const std::vector<SpdEntry>& spd, bool in) {
  const Selector selector = in ? Mirrored(out) : out;
  SystemAction strictest = SystemAction::kBypass;
  for (const SpdEntry& entry : spd) {
    if (entry.dir != (in ? 0 : 1) || entry.mark_mask != 0 || entry.if_id != 0) continue;
    if ((entry.bare && !entry.block) || !Overlaps(entry.selector, selector)) continue;
    strictest = std::max(strictest, entry.block ? SystemAction::kDiscard : SystemAction::kProtect);
  }
  return strictest;
}

}  // namespace

Prefix Everything(Family family) { return Prefix{Address::AnyOf(family), 0}; }

Need NeedOf(policy::Action action) {
  switch (action) {
    case policy::Action::kProtect:
      return Need::kProtect;
    case policy::Action::kProtectOrBypass:
      return Need::kOptional;
    case policy::Action::kBypass:
      return Need::kBypass;
    case policy::Action::kSystem:
      return Need::kSystem;
    case policy::Action::kDiscard:
      break;
  }
  return Need::kDiscard;
}

Clear LetClear(const SocketAddress& bound, const Region& region, const std::vector<SpdEntry>& spd,
               uint32_t guard_mark, const policy::Grants& grants, uint8_t protocol) {
  Guard out = OutHole(bound, region.remote.base.family, region.remote, guard_mark, protocol);
  if (region.need == Need::kOptional) out.priority = kOptionalPriority;
  const SystemAction asks_out = Strictest(out.selector, spd, /*in=*/false);
  const SystemAction asks = std::max(asks_out, Strictest(out.selector, spd, /*in=*/true));
  if (asks == SystemAction::kBypass) return {{out}, false};
  // Who leaves it to the system asks for nothing less.
  if (region.need != Need::kSystem && grants.Has(policy::Grant::kBypass) &&
      (asks != SystemAction::kDiscard || grants.Has(policy::Grant::kOverrideDiscard))) {
    Guard in = out;
    in.out = false;
    in.mark = 0;
    in.selector = Mirrored(out.selector);
    return {{out, in}, true};
  }
  // What they may not is left to the SPD: each way by itself.
  if (asks_out == SystemAction::kBypass) return {{out}, false};
  return {};
}

Guard RequireIn(const SocketAddress& local, const Prefix& remote, SaProtocol protocol, Mode mode) {
  return InGuard(local, remote.base.family, remote, RequireAction(protocol), mode);
}

bool ByReqid(const std::vector<Guard>& guards, const Address& remote) {
  return std::ranges::any_of(guards, [&remote](const Guard& guard) {
    return !guard.out && guard.action == Guard::Action::kBlock &&
           guard.priority == kTunnelPriority && guard.selector.source.Contains(remote);
  });
}

Result<std::vector<Region>> CutRegions(const policy::Policy& policy, const SocketAddress& local,
                                       Family family) {
  std::vector<Region> regions;
  std::vector<Prefix> open = {Everything(family)};
  const bool wildcard = local.address.IsAny();
  for (const policy::Rule& rule : policy.rules) {
    if (open.empty()) break;
    if (!SpeaksOfListener(rule, local, wildcard)) continue;
    if (wildcard && !rule.local.empty()) {
      return Fail(Reason::kUnsupported, "plan listener",
                  "rule " + rule.name + " names local addresses, but the socket is bound to all");
    }
    std::vector<Prefix> remotes = rule.remote;
    if (remotes.empty()) remotes.push_back(Everything(family));
    for (const Prefix& remote : remotes) {
      if (remote.base.family != family) continue;
      for (const Prefix& part : Within(open, remote)) {
        regions.push_back(Region{part, NeedOf(rule.action), rule.protection.protocol,
                                 rule.protection.mode.value_or(Mode::kTransport)});
      }
      Take(open, remote);
      if (regions.size() + open.size() > kMaxRegions) {
        return Fail(Reason::kUnsupported, "plan listener", "too many distinct remote prefixes");
      }
    }
  }
  for (const Prefix& prefix : open) {
    regions.push_back(Region{prefix, NeedOf(policy.otherwise)});
  }
  return regions;
}

Result<ListenerPlan> PlanListener(const policy::Policy& policy, const SocketAddress& local,
                                  const std::vector<Family>& families,
                                  const std::vector<SpdEntry>& spd, uint32_t guard_mark,
                                  policy::Grants grants) {
  ListenerPlan plan;
  std::vector<std::vector<Region>> cut;
  const auto bound = [&local](Family family) {
    return SocketAddress{local.address.IsAny() ? Address::AnyOf(family) : local.address,
                         local.port};
  };
  bool bypass = false;
  bool protects = false;
  bool mixed = false;
  for (const Family family : families) {
    Result<std::vector<Region>> regions = CutRegions(policy, local, family);
    if (!regions) return std::unexpected(regions.error());
    for (const Region& region : *regions) {
      if (MayBeClear(region.need)) {
        bypass = true;
        plan.latched = plan.latched || region.need == Need::kOptional ||
                       LetClear(bound(family), region, spd, guard_mark, grants).against;
      }
      if (region.need != Need::kProtect) continue;
      const bool other = region.protocol != plan.protocol || region.mode != plan.mode;
      mixed = mixed || (protects && other);
      plan.latched = protects = true;
      plan.protocol = region.protocol;
      plan.mode = region.mode;
    }
    cut.push_back(std::move(*regions));
  }
  if (!plan.latched) {
    if (bypass) return plan;
    return Fail(Reason::kPolicyDiscard, "plan listener", "no rule lets anybody connect");
  }
  plan.pure = !bypass && !mixed && plan.mode != Mode::kTunnel;
  if (plan.pure) {
    // One family is held by the socket's own policy, which nothing in the SPD can beat; the other,
    // if there is one, by SPD entries. Where somebody else's entry would beat those, swap roles.
    const auto guard_for = [&](Family family) {
      return InGuard(bound(family), family, Everything(family), RequireAction(plan.protocol),
                     plan.mode);
    };
    plan.socket_family = families.front();
    if (families.size() == 2 && Beaten(guard_for(families[1]), spd)) {
      plan.socket_family = families[1];
    }
    for (const Family family : families) {
      if (family == plan.socket_family) continue;
      const Guard guard = guard_for(family);
      if (Beaten(guard, spd)) {
        return Fail(Reason::kConflictSpd, "plan listener",
                    "an SPD entry that lets clear packets in comes before the guard");
      }
      plan.guards.push_back(guard);
    }
    return plan;
  }
  for (size_t i = 0; i < families.size(); ++i) {
    const Family family = families[i];
    for (const Region& region : cut[i]) {
      if (MayBeClear(region.need)) {
        const Clear clear = LetClear(bound(family), region, spd, guard_mark, grants);
        plan.guards.insert(plan.guards.end(), clear.guards.begin(), clear.guards.end());
        continue;
      }
      const Guard guard =
          region.need == Need::kProtect
              ? HoldIn(bound(family), region)
              : InGuard(bound(family), family, region.remote, Guard::Action::kBlock);
      if (Beaten(guard, spd)) {
        return Fail(Reason::kConflictSpd, "plan listener",
                    "an SPD entry that lets clear packets in comes before the guard");
      }
      plan.guards.push_back(guard);
    }
  }
  return plan;
}

}  // namespace latchkey::broker
