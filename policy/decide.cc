#include "policy/decide.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "policy/identity.h"

namespace latchkey::policy {
namespace {

bool Lists(const std::vector<std::string>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

const std::vector<SpdEntry> kNoSpd;

// Adds what the system asks; false when nothing can meet both.
bool MeetSystem(Demand& demand, const SystemAsk& ask) {
  demand.algorithms &= ask.algorithms;
  if (ask.mode != Mode::kUnknown) {
    if (demand.mode && *demand.mode != ask.mode) return false;
    demand.mode = ask.mode;
  }
  demand.replay = demand.replay || ask.replay;
  demand.esn = demand.esn || ask.esn;
  demand.unique = demand.unique || ask.unique;
  demand.peers.insert(demand.peers.end(), ask.peers.begin(), ask.peers.end());
  // Another SA than the one the SPD names cannot be told to be as good.
  if (demand.reqid != 0 && ask.reqid != 0 && demand.reqid != ask.reqid) return false;
  if (demand.reqid == 0) demand.reqid = ask.reqid;
  return demand.algorithms.any();
}

}  // namespace

// The steps of Decide().
struct Decision {
  const System& system;
  const Requester& requester;
  bool same_host;
  Verdict verdict;

  void Allow(Outcome outcome) {
    verdict.outcome = outcome;
    verdict.reason = Reason::kNone;
  }
  void Refuse(Reason reason) {
    verdict.outcome = Outcome::kRefuse;
    verdict.reason = reason;
  }
  bool Has(Grant grant) const { return requester.grants.Has(grant); }

  // True when this requester may send in clear what the system asks that of.
  bool MayClear() const {
    switch (verdict.system.action) {
      case SystemAction::kBypass:
        return true;
      case SystemAction::kProtect:
        return Has(Grant::kBypass);
      case SystemAction::kDiscard:
        return Has(Grant::kOverrideDiscard) && Has(Grant::kBypass);
    }
    return false;
  }

  void Bypass() {
    const bool discarded = verdict.system.action == SystemAction::kDiscard;
    // Within the host there is nothing to protect from, so nothing to be allowed.
    if (same_host && !discarded) return Allow(Outcome::kLocal);
    if (!MayClear()) {
      return Refuse(discarded ? Reason::kPolicyDiscard : Reason::kUnprivilegedBypass);
    }
    if (same_host) return Allow(Outcome::kLocal);
    if (verdict.system.action == SystemAction::kBypass) return Allow(Outcome::kBypass);
    verdict.permit = ClearPermit();
    Allow(Outcome::kClear);
  }

  void FollowSystem() {
    const SystemAsk& ask = verdict.system;
    if (ask.action == SystemAction::kDiscard) return Refuse(Reason::kPolicyDiscard);
    if (same_host) return Allow(Outcome::kLocal);
    if (ask.action == SystemAction::kBypass) return Allow(Outcome::kBypass);
    Demand& demand = verdict.demand;
    demand.algorithms.set();
    verdict.implicit = true;
    if (ask.rule != nullptr) demand.pin = ask.rule->protection.pin;
    // The SPD and the file, or rules of the file, contradict each other.
    if (!MeetSystem(demand, ask)) return Refuse(Reason::kConflictSpd);
    Allow(Outcome::kProtect);
  }

  void Protect(const Rule& rule, bool comes) {
    const SystemAsk& ask = verdict.system;
    if (ask.action == SystemAction::kDiscard && !Has(Grant::kOverrideDiscard)) {
      return Refuse(Reason::kPolicyDiscard);
    }
    if (same_host) {
      if (comes && rule.action == Action::kProtect) {
        return Refuse(Reason::kLocalPeer);
      }
      return Allow(Outcome::kLocal);
    }
    verdict.demand = DemandOf(rule);
    // Who may override a discard is still held to what other rules ask of the flow's protection.
    if (!Has(Grant::kWeaken)) {
      if (!MeetSystem(verdict.demand, ask)) return Refuse(Reason::kUnprivilegedWeaken);
    } else if (verdict.demand.reqid == 0) {
      verdict.demand.reqid = ask.reqid;
    }
    if (rule.action == Action::kProtectOrBypass && MayClear()) verdict.permit = ClearPermit();
    Allow(Outcome::kProtect);
  }
};

namespace {

Verdict DecideAlone(const System& system, const Policy& application, const Requester& requester,
                    const Flow& flow, bool same_host) {
  const Rule* rule = FirstMatch(application, flow);
  Flow incoming = flow;
  incoming.direction = Direction::kIn;
  const bool comes =
      flow.direction == Direction::kIn ||
      (flow.direction == Direction::kBoth && FirstMatch(application, incoming) == rule);
  const Action action = rule == nullptr ? application.otherwise : rule->action;
  Decision decision{system, requester, same_host, {}};
  decision.verdict.rule = rule;
  // The kernel applies the SPD within the host by itself; nobody has SAs there.
  decision.verdict.system = AskSystem(system.file, same_host ? kNoSpd : system.spd, flow);
  switch (action) {
    case Action::kDiscard:
      decision.Refuse(Reason::kPolicyDiscard);
      break;
    case Action::kBypass:
      decision.Bypass();
      break;
    case Action::kSystem:
      decision.FollowSystem();
      break;
    case Action::kProtect:
    case Action::kProtectOrBypass:
      // A default never protects by itself (parse.cc).
      if (rule != nullptr) decision.Protect(*rule, comes);
      break;
  }
  return std::move(decision.verdict);
}

// Adds the demand of a floor to a request's; false when nothing can meet both.
bool MeetFloor(Demand& demand, const Demand& floor) {
  SystemAsk ask;
  ask.algorithms = floor.algorithms;
  ask.mode = floor.mode.value_or(Mode::kUnknown);
  ask.replay = floor.replay;
  ask.esn = floor.esn;
  ask.unique = floor.unique;
  ask.reqid = floor.reqid;
  ask.peers = floor.peers;
  if (demand.pin == Pin::kAuto || floor.pin == Pin::kSpi) demand.pin = floor.pin;
  return MeetSystem(demand, ask);
}

}  // namespace

Verdict Decide(const System& system, const Policy& application, const Requester& requester,
               const Flow& flow, bool same_host) {
  if (application.floor == nullptr) {
    return DecideAlone(system, application, requester, flow, same_host);
  }
  Verdict floor = DecideAlone(system, *application.floor, requester, flow, same_host);
  if (floor.outcome == Outcome::kRefuse) return floor;
  const Requester alone{requester.uid, requester.own, requester.own};
  Verdict wish = DecideAlone(system, application, alone, flow, same_host);
  const bool held = floor.outcome == Outcome::kProtect && !floor.implicit;
  if (wish.outcome == Outcome::kRefuse || !held) return wish;
  if (wish.outcome != Outcome::kProtect) {
    wish.permit.reset();
    wish.outcome = Outcome::kRefuse;
    wish.reason = Reason::kUnprivilegedBypass;
  } else if (!MeetFloor(wish.demand, floor.demand)) {
    wish.permit.reset();
    wish.outcome = Outcome::kRefuse;
    wish.reason = Reason::kUnprivilegedWeaken;
  } else if (!floor.permit) {
    wish.permit.reset();
  }
  return wish;
}

Demand DemandOf(const Rule& rule) {
  Demand demand;
  demand.algorithms = AcceptedBy(rule);
  demand.mode = rule.protection.mode;
  demand.replay = rule.protection.replay_required;
  demand.esn = rule.protection.esn_required;
  demand.unique = rule.protection.unique;
  if (!rule.peer.ids.empty() || !rule.peer.auth.empty()) demand.peers.push_back(&rule.peer);
  demand.pin = rule.protection.pin;
  demand.reqid = rule.reqid;
  return demand;
}

bool PeerAllowed(const PeerSpec& peer, const Identity& identity) {
  if (identity.peer_id.empty()) return false;
  if (!peer.auth.empty() && !Lists(peer.auth, identity.auth)) return false;
  return peer.ids.empty() || std::ranges::any_of(peer.ids, [&](const std::string& id) {
           return IdMatches(id, identity.peer_id);
         });
}

Reason Judge(const Demand& demand, const Identity& identity, const Protection& protection) {
  if (identity.peer_id.empty()) return Reason::kPeerMismatch;
  for (const PeerSpec* peer : demand.peers) {
    if (!PeerAllowed(*peer, identity)) return Reason::kPeerMismatch;
  }
  const std::optional<size_t> place = PlaceOf(protection);
  const bool known_mode = protection.mode == Mode::kTransport || protection.mode == Mode::kTunnel;
  const bool meets = place && demand.algorithms[*place] && known_mode &&
                     (!demand.mode || *demand.mode == protection.mode) &&
                     (!demand.replay || protection.replay) && (!demand.esn || protection.esn);
  return meets ? Reason::kNone : Reason::kWeakProtection;
}

}  // namespace latchkey::policy
