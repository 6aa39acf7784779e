#include "tools/latchkeyd/latch/hold_plan.h"

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/listener_plan.h"

namespace latchkey::broker {
namespace {

constexpr size_t kMaxRegions = 512;

// What the rules of one direction say of a part of the address space, until one has settled it.
struct Side {
  const policy::Rule* by = nullptr;  // it settled it
  bool reaches = false;              // something lets the program send there
  bool barred = false;               // but something keeps it from the programs of its own host
  bool asked = false;                // rules about more than addresses ask for more
  bool unsure = false;               // some of them by our address, that is not known
  bool loose = false;                // of some ports a rule that gives way lets in what comes
  std::vector<PortRange> ports;      // and others of these ports of the other end
};

// A part of the address space.
struct Part {
  Prefix remote;
  Side in, out;
};

// What becomes of one.
struct Fate {
  Need need = Need::kDiscard;
  bool asked = false;
  bool same_host = false;
  std::vector<PortRange> but;  // where it passes: of these ports nothing does unasked
};

Error Unsupported(const policy::Rule& rule, const std::string& why) {
  return Error{"hold socket", "rule " + rule.name + ": " + why, Reason::kUnsupported};
}

// Speaks of datagrams at `local`, whoever the other end.
bool Speaks(const policy::Rule& rule, const SocketAddress& local) {
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

// What a rule says of one direction of a part. `elsewhere`: it may be about another address of
// ours.
void Apply(Side& side, const policy::Rule& rule, bool elsewhere, bool incoming) {
  if (side.by != nullptr) return;
  const Need need = NeedOf(rule.action);
  side.reaches = side.reaches || need != Need::kDiscard;
  side.barred = side.barred || (incoming && need != Need::kBypass);
  if (!elsewhere && rule.remote_port.empty()) {
    side.by = &rule;
  } else if (need == Need::kBypass) {  // it needs no more than what comes after it says
    side.loose = side.loose || (incoming && !policy::NamesServer(rule));
  } else {
    side.asked = true;
    side.unsure = side.unsure || elsewhere;
    side.ports.insert(side.ports.end(), rule.remote_port.begin(), rule.remote_port.end());
  }
}

// Both directions together, as policy::FirstMatch takes them.
Fate FateOf(const Part& part, policy::Action otherwise) {
  const Side& in = part.in;
  const Side& out = part.out;
  Fate fate;
  const bool settled = in.by != nullptr;
  const bool alone = settled && (!policy::LetsPass(in.by->action) || policy::NamesServer(*in.by));
  bool reaches = in.reaches;
  const bool barred = out.by != nullptr && policy::Bars(out.by->action);
  if (alone) {
    fate.need = NeedOf(in.by->action);
    fate.asked = in.asked || (in.loose && (barred || out.asked));
  } else {
    const bool weaker = !barred;
    const policy::Rule* const by = settled && weaker ? in.by : out.by;
    fate.need = NeedOf(by != nullptr ? by->action : otherwise);
    reaches = reaches || out.reaches || (by == nullptr && fate.need != Need::kDiscard);
    // Whom a rule lets in is heard, but of those ports.
    const bool told = settled && weaker && !in.asked && !out.unsure;
    if (told && out.ports.size() <= kMostBut) fate.but = out.ports;
    fate.asked = in.asked || out.asked;
  }
  // As for TCP: there are no SAs within the host; who is served under them is not from there.
  fate.same_host = reaches && !in.barred;
  return fate;
}

Result<std::vector<Part>> CutDatagrams(const policy::Policy& policy, const SocketAddress& local,
                                       Family family) {
  std::vector<Part> parts = {Part{Everything(family), {}, {}}};
  for (const policy::Rule& rule : policy.rules) {
    if (!Speaks(rule, local)) continue;
    const bool in = rule.direction != Direction::kOut;
    const bool elsewhere = local.address.IsAny() && !rule.local.empty();
    if (elsewhere && in) {
      return std::unexpected(
          Unsupported(rule, "names local addresses, but the socket is bound to all"));
    }
    bool settles = false;
    for (const Prefix& remote : RemotesOf(rule, family)) {
      Within(parts, remote, [&](Part& part) {
        if (in) Apply(part.in, rule, elsewhere, /*incoming=*/true);
        if (rule.direction != Direction::kIn) Apply(part.out, rule, elsewhere, /*incoming=*/false);
        settles = settles || part.in.by == &rule;
      });
    }
    const bool able = rule.action != policy::Action::kProtectOrBypass &&
                      (rule.action != policy::Action::kProtect ||
                       rule.protection.mode.value_or(Mode::kTransport) == Mode::kTransport);
    if (settles && !able) {
      return std::unexpected(Unsupported(
          rule, "datagrams that come in are held to \"protect\" in transport mode only"));
    }
    if (parts.size() > kMaxRegions) {
      return std::unexpected(Unsupported(rule, "too many distinct remote prefixes"));
    }
  }
  return parts;
}

// What the system's file asks is decided for each other end.
void AskOfSystem(std::vector<Part>& parts, const policy::SystemPolicy& file,
                 const SocketAddress& local, Family family) {
  for (const policy::Rule& rule : file.rules) {
    if (rule.action == policy::Action::kBypass || !Speaks(rule, local)) continue;
    for (const Prefix& remote : RemotesOf(rule, family)) {
      Within(parts, remote, [&rule](Part& part) {
        part.in.asked = true;
        part.in.barred = part.in.barred || rule.action == policy::Action::kDiscard;
      });
    }
  }
}

}  // namespace

Result<HoldPlan> PlanHold(const policy::Policy& policy, const policy::System& system,
                          const SocketAddress& local, const std::vector<Family>& families,
                          uint32_t guard_mark, policy::Grants grants) {
  using DatagramNeed = DatagramRegion::Need;
  HoldPlan plan;
  bool moves = false;
  for (const Family family : families) {
    Result<std::vector<Part>> parts = CutDatagrams(policy, local, family);
    if (!parts) return std::unexpected(parts.error());
    AskOfSystem(*parts, system.file, local, family);
    const SocketAddress bound{local.address.IsAny() ? Address::AnyOf(family) : local.address,
                              local.port};
    for (const Part& part : *parts) {
      const Fate fate = FateOf(part, policy.otherwise);
      DatagramRegion region{part.remote, 0, DatagramNeed::kDrop, fate.same_host};
      const bool clear = fate.need == Need::kBypass || fate.need == Need::kSystem;
      plan.held = plan.held || fate.asked || !clear;
      moves = moves || fate.asked || fate.need != Need::kDiscard;
      if (fate.asked) plan.asked.push_back(part.remote);
      if (fate.need == Need::kProtect) region.need = DatagramNeed::kTag;
      if (clear && (!fate.asked || !fate.but.empty())) region.need = DatagramNeed::kPass;
      region.but = fate.but;
      if (clear && !fate.asked) {
        const Clear pass = LetClear(bound, Region{part.remote, fate.need}, system.spd, guard_mark,
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
