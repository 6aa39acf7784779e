#include "policy/system_policy.h"

#include <algorithm>

namespace latchkey::policy {
namespace {

enum class Fit : uint8_t { kNo, kPerhaps, kYes };

Fit Worse(Fit a, Fit b) { return std::min(a, b); }

Fit AddressFit(const std::vector<Prefix>& prefixes, const Address& address) {
  if (prefixes.empty()) return Fit::kYes;
  // The wildcard of a socket not bound yet is no address either.
  if (address.family == Family::kNone || address.IsAny()) return Fit::kPerhaps;
  const bool fits =
      std::ranges::any_of(prefixes, [&](const Prefix& prefix) { return prefix.Contains(address); });
  return fits ? Fit::kYes : Fit::kNo;
}

Fit PortFit(const std::vector<PortRange>& ranges, uint16_t port) {
  if (ranges.empty()) return Fit::kYes;
  if (port == 0) return Fit::kPerhaps;
  const bool fits =
      std::ranges::any_of(ranges, [&](const PortRange& range) { return range.Contains(port); });
  return fits ? Fit::kYes : Fit::kNo;
}

Fit DirectionFit(const Rule& rule, Direction direction) {
  if (rule.direction == Direction::kBoth || rule.direction == direction) return Fit::kYes;
  if (direction != Direction::kBoth) return Fit::kNo;
  // Either says whose datagrams are meant: a server's, or those with one.
  const bool named =
      NamesServer(rule) || (rule.direction == Direction::kOut && !rule.remote_port.empty());
  return named ? Fit::kYes : Fit::kPerhaps;
}

Fit FitOf(const Rule& rule, const Flow& flow) {
  const Fit direction = DirectionFit(rule, flow.direction);
  if (direction == Fit::kNo) return Fit::kNo;
  if (rule.protocol != 0 && rule.protocol != flow.protocol) return Fit::kNo;
  const Fit ends = Worse(Worse(AddressFit(rule.remote, flow.remote.address),
                               AddressFit(rule.local, flow.local.address)),
                         Worse(PortFit(rule.remote_port, flow.remote.port),
                               PortFit(rule.local_port, flow.local.port)));
  return Worse(direction, ends);
}

AlgorithmSet AllOf(SaProtocol protocol) {
  AlgorithmSet set;
  for (size_t i = 0; i < Algorithms().size(); ++i) set[i] = Algorithms()[i].protocol == protocol;
  return set;
}

void Meet(SystemAsk& ask, const SystemPolicy& file, const Rule& rule) {
  const ProtectionSpec& spec = rule.protection;
  ask.algorithms &= file.suites.AtLeast(AcceptedBy(rule));
  if (spec.mode) {
    // Two that contradict each other leave nothing that meets both.
    if (ask.mode != Mode::kUnknown && ask.mode != *spec.mode) ask.algorithms.reset();
    ask.mode = *spec.mode;
  }
  ask.replay = ask.replay || spec.replay_required;
  ask.esn = ask.esn || spec.esn_required;
  ask.unique = ask.unique || spec.unique;
  if (!rule.peer.ids.empty() || !rule.peer.auth.empty()) ask.peers.push_back(&rule.peer);
}

}  // namespace

SystemAsk AskSystem(const SystemPolicy& file, const std::vector<SpdEntry>& spd, const Flow& flow) {
  SystemAsk ask;
  ask.algorithms.set();
  for (const bool out : {true, false}) {
    const SystemView view = LookUpSpd(spd, flow, out);
    if (view.action == SystemAction::kBypass) continue;
    if (view.action > ask.action) {
      ask.action = view.action;
      ask.spd = view.entry;
    }
    if (view.action != SystemAction::kProtect) continue;
    static const AlgorithmSet esp = AllOf(SaProtocol::kEsp);
    static const AlgorithmSet ah = AllOf(SaProtocol::kAh);
    ask.algorithms &= file.suites.AtLeast(view.entry->protocol == SaProtocol::kAh ? ah : esp);
    // The outgoing entry's: that is the one the kernel takes SAs by.
    if (ask.reqid == 0) ask.reqid = view.reqid;
    // Ways that contradict each other leave nothing that meets both.
    if (ask.mode != Mode::kUnknown && ask.mode != view.entry->mode) ask.algorithms.reset();
    ask.mode = view.entry->mode;
  }
  for (const Rule& rule : file.rules) {
    const Fit fit = FitOf(rule, flow);
    if (fit == Fit::kNo) continue;
    if (rule.action == Action::kBypass) {
      if (fit == Fit::kYes) break;
      continue;
    }
    const SystemAction action =
        rule.action == Action::kDiscard ? SystemAction::kDiscard : SystemAction::kProtect;
    if (action > ask.action || ask.rule == nullptr) ask.rule = &rule;
    ask.action = std::max(ask.action, action);
    if (action == SystemAction::kProtect) Meet(ask, file, rule);
  }
  return ask;
}

}  // namespace latchkey::policy
