#include "policy/decide.h"

#include <algorithm>
#include <string_view>

#include "policy/identity.h"
#include "policy/suites.h"

namespace latchkey::policy {
namespace {

bool Lists(const std::vector<std::string>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

bool ProtectionFits(const ProtectionSpec& spec, const Protection& protection) {
  if (protection.protocol != spec.protocol || protection.mode != spec.mode) return false;
  if (protection.key_bits < spec.min_key_bits) return false;
  if (spec.replay_required && !protection.replay) return false;
  if (spec.esn_required && !protection.esn) return false;
  const Suite* suite = SuiteByName(protection.encryption);
  if (suite == nullptr || suite->kind == Kind::kIntegrity) return false;
  if (spec.encryption.empty()) {
    if (protection.encryption == "null") return false;
  } else if (!Lists(spec.encryption, protection.encryption)) {
    return false;
  }
  if (suite->kind == Kind::kAead) return true;
  const Suite* integrity = SuiteByName(protection.integrity);
  if (integrity == nullptr || integrity->kind != Kind::kIntegrity) return false;
  return spec.integrity.empty() || Lists(spec.integrity, protection.integrity);
}

}  // namespace

bool PeerAllowed(const PeerSpec& peer, const Identity& identity) {
  if (identity.peer_id.empty()) return false;
  if (!peer.auth.empty() && !Lists(peer.auth, identity.auth)) return false;
  return peer.ids.empty() || std::ranges::any_of(peer.ids, [&](const std::string& id) {
           return IdMatches(id, identity.peer_id);
         });
}

Reason Judge(const Rule& rule, const Identity& identity, const Protection& protection) {
  if (!PeerAllowed(rule.peer, identity)) return Reason::kPeerMismatch;
  if (!ProtectionFits(rule.protection, protection)) return Reason::kWeakProtection;
  return Reason::kNone;
}

Verdict Decide(const Policy& policy, const Requester& requester, const Flow& flow, bool same_host,
               const SystemView& system) {
  const Rule* rule = FirstMatch(policy, flow);
  const Action action = rule == nullptr ? policy.otherwise : rule->action;
  Verdict verdict;
  verdict.rule = rule;
  switch (action) {
    case Action::kDiscard:
      return verdict;
    case Action::kBypass:
    case Action::kSystem:
      verdict.outcome = same_host ? Outcome::kLocal : Outcome::kBypass;
      verdict.reason = Reason::kNone;
      return verdict;
    case Action::kProtect:
      break;
  }
  if (rule == nullptr) return verdict;  // a default never protects
  if (same_host) {
    if (flow.direction == Direction::kIn) {
      verdict.reason = Reason::kLocalPeer;
      return verdict;
    }
    verdict.outcome = Outcome::kLocal;
    verdict.reason = Reason::kNone;
    return verdict;
  }
  // The grant override-discard is root's alone as long as no other can be given.
  if (system.action == SystemAction::kDiscard && !requester.root) return verdict;
  verdict.outcome = Outcome::kProtect;
  verdict.reason = Reason::kNone;
  verdict.reqid = rule->reqid;
  if (verdict.reqid == 0 && system.action == SystemAction::kProtect) verdict.reqid = system.reqid;
  return verdict;
}

}  // namespace latchkey::policy
