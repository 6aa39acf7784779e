#include "tools/latchkeyd/latch/hold_plan.h"

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/listener_plan.h"

namespace latchkey::broker {
namespace {

constexpr size_t kMaxRegions = 512;

// A part of the address space. While it is open, no rule has decided about it.
struct Part {
  Prefix remote;
  Need need = Need::kDiscard;
  bool open = true;
  bool asked = false;
  bool reaches = false;  // something lets the program send there
  bool barred = false;   // but something keeps it from the programs of its own host
};

Error Unsupported(const policy::Rule& rule, const std::string& why) {
  return Error{"hold socket", "rule " + rule.name + ": " + why, Reason::kUnsupported};
}

// Speaks of datagrams at `local`, whoever the other end: of incoming ones, or of outgoing ones
// alone.
bool Speaks(const policy::Rule& rule, const SocketAddress& local, bool incoming) {
  if ((rule.direction != Direction::kOut) != incoming) return false;
  if (rule.protocol != 0 && rule.protocol != kProtocolUdp) return false;
  if (!rule.local_port.empty() &&
      std::ranges::none_of(rule.local_port,
                           [&](const PortRange& range) { return range.Contains(local.port); })) {
    return false;
  }
  return rule.local.empty() || local.address.IsAny() ||
         std::ranges::any_of(rule.local,
                             [&](const Prefix& prefix) { return prefix.Contains(local.address); });
}

// Splits what lies in part in `wanted`, and gives `change` each part that then lies in it.
template <typename Change>
void Within(std::vector<Part>& parts, const Prefix& wanted, Change change) {
  std::vector<Part> split;
  for (const Part& part : parts) {
    if (!part.remote.Overlaps(wanted)) {
      split.push_back(part);
      continue;
    }
    Part inside = part;
    if (part.remote.length < wanted.length) inside.remote = wanted;
    change(inside);
    split.push_back(inside);
    for (const Prefix& rest : Subtract(part.remote, inside.remote)) {
      Part outside = part;
      outside.remote = rest;
      split.push_back(outside);
    }
  }
  parts = std::move(split);
}

std::vector<Prefix> RemotesOf(const policy::Rule& rule, Family family) {
  if (rule.remote.empty()) return {Everything(family)};
  std::vector<Prefix> remotes;
  std::ranges::copy_if(rule.remote, std::back_inserter(remotes),
                       [family](const Prefix& prefix) { return prefix.base.family == family; });
  return remotes;
}

// Settles what is open by one rule of the policy.
Result<void> Apply(std::vector<Part>& parts, const policy::Rule& rule, bool wildcard, bool incoming,
                   Family family) {
  const bool elsewhere = wildcard && !rule.local.empty();
  if (elsewhere && incoming) {
    return std::unexpected(
        Unsupported(rule, "names local addresses, but the socket is bound to all"));
  }
  const bool depends = elsewhere || !rule.remote_port.empty();
  const Need need = NeedOf(rule.action);
  bool unable = false;
  for (const Prefix& remote : RemotesOf(rule, family)) {
    Within(parts, remote, [&](Part& part) {
      if (!part.open) return;
      if (depends) {
        // What it lets pass needs no more than what comes after it says.
        part.asked = part.asked || need != Need::kBypass;
        part.barred = part.barred || (incoming && need != Need::kBypass);
        part.reaches = part.reaches || need != Need::kDiscard;
        return;
      }
      unable = unable || (incoming &&
                          (need == Need::kOptional ||
                           (need == Need::kProtect &&
                            rule.protection.mode.value_or(Mode::kTransport) != Mode::kTransport)));
      part.open = false;
      part.need = need;
      part.barred = part.barred || (incoming && need != Need::kBypass);
      part.reaches = part.reaches || need != Need::kDiscard;
    });
  }
  if (unable) {
    return std::unexpected(
        Unsupported(rule, "datagrams that come in are held to \"protect\" in transport mode only"));
  }
  if (parts.size() > kMaxRegions) {
    return std::unexpected(Unsupported(rule, "too many distinct remote prefixes"));
  }
  return {};
}

Result<std::vector<Part>> CutDatagrams(const policy::Policy& policy,
                                       const policy::SystemPolicy& file, const SocketAddress& local,
                                       Family family) {
  std::vector<Part> parts = {Part{Everything(family)}};
  for (const bool incoming : {true, false}) {
    for (const policy::Rule& rule : policy.rules) {
      if (!Speaks(rule, local, incoming)) continue;
      Result<void> done = Apply(parts, rule, local.address.IsAny(), incoming, family);
      if (!done) return std::unexpected(done.error());
    }
  }
  for (Part& part : parts) {
    if (!part.open) continue;
    part.need = NeedOf(policy.otherwise);
    part.reaches = part.reaches || part.need != Need::kDiscard;
  }
  // What the system's file asks is decided for each other end.
  for (const policy::Rule& rule : file.rules) {
    if (rule.action == policy::Action::kBypass) continue;
    if (!Speaks(rule, local, true) && !Speaks(rule, local, false)) continue;
    for (const Prefix& remote : RemotesOf(rule, family)) {
      Within(parts, remote, [&rule](Part& part) {
        part.asked = true;
        part.barred = part.barred || rule.action == policy::Action::kDiscard;
      });
    }
  }
  return parts;
}

}  // namespace

Result<HoldPlan> PlanHold(const policy::Policy& policy, const policy::System& system,
                          const SocketAddress& local, const std::vector<Family>& families,
                          uint32_t guard_mark, policy::Grants grants) {
  using DatagramNeed = DatagramRegion::Need;
  HoldPlan plan;
  bool moves = false;
  for (const Family family : families) {
    Result<std::vector<Part>> parts = CutDatagrams(policy, system.file, local, family);
    if (!parts) return std::unexpected(parts.error());
    const SocketAddress bound{local.address.IsAny() ? Address::AnyOf(family) : local.address,
                              local.port};
    for (const Part& part : *parts) {
      DatagramRegion region{part.remote, 0, DatagramNeed::kDrop};
      // As for TCP: there are no SAs within the host; who is served under them is not from there.
      region.same_host = part.reaches && !part.barred;
      const bool clear = part.need == Need::kBypass || part.need == Need::kSystem;
      plan.held = plan.held || part.asked || !clear;
      moves = moves || part.asked || part.need != Need::kDiscard;
      if (part.asked) plan.asked.push_back(part.remote);
      if (part.need == Need::kProtect) region.need = DatagramNeed::kTag;
      if (clear && !part.asked) {
        region.need = DatagramNeed::kPass;
        const Clear pass = LetClear(bound, Region{part.remote, part.need}, system.spd, guard_mark,
                                    grants, kProtocolUdp);
        plan.held = plan.held || pass.against;
        plan.guards.insert(plan.guards.end(), pass.guards.begin(), pass.guards.end());
      }
      plan.regions.push_back(region);
    }
  }
  if (!moves) return Fail(Reason::kPolicyDiscard, "hold socket", "no rule lets datagrams move");
  return plan;
}

}  // namespace latchkey::broker
