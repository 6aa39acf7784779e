#include "policy/decide.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "policy/suites.h"

namespace latchkey::policy {
namespace {

enum class Form : uint8_t { kHost, kEmail, kExact };

struct TypedId {
  Form form = Form::kExact;
  std::string_view kind;  // as written before the colon; empty when it was left out
  std::string_view value;
};

TypedId TypeOf(std::string_view id) {
  for (const std::string_view kind : {"fqdn", "email", "dn", "ip", "keyid"}) {
    if (id.size() > kind.size() && id.starts_with(kind) && id[kind.size()] == ':') {
      const Form form = kind == "fqdn"    ? Form::kHost
                        : kind == "email" ? Form::kEmail
                                          : Form::kExact;
      return {form, kind, id.substr(kind.size() + 1)};
    }
  }
  if (id.find('=') != std::string_view::npos) return {Form::kExact, {}, id};
  if (id.find('@') != std::string_view::npos) return {Form::kEmail, {}, id};
  return {Form::kHost, {}, id};
}

bool EqualNoCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

bool IdMatches(std::string_view pattern_text, std::string_view id_text) {
  const TypedId pattern = TypeOf(pattern_text);
  const TypedId id = TypeOf(id_text);
  if (!pattern.kind.empty() && !id.kind.empty() && pattern.kind != id.kind) return false;
  if (pattern.form != id.form) return false;
  if (pattern.form == Form::kExact) return pattern.value == id.value;
  if (pattern.form == Form::kEmail) return EqualNoCase(pattern.value, id.value);
  if (!pattern.value.starts_with("*.")) return EqualNoCase(pattern.value, id.value);
  const size_t dot = id.value.find('.');
  return dot != std::string_view::npos && dot > 0 &&
         EqualNoCase(pattern.value.substr(1), id.value.substr(dot));
}

bool Lists(const std::vector<std::string>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

bool ProtectionFits(const ProtectionSpec& spec, const Protection& protection) {
  if (protection.protocol != spec.protocol || protection.mode != spec.mode) return false;
  if (protection.key_bits < spec.min_key_bits) return false;
  if (spec.replay_required && !protection.replay) return false;
  if (spec.esn_required && !protection.esn) return false;
  const Suite* suite = SuiteByName(protection.encryption);
  const bool aead = suite != nullptr && suite->kind == Kind::kAead;
  if (spec.encryption.empty()) {
    if (suite == nullptr || protection.encryption == "null") return false;
  } else if (!Lists(spec.encryption, protection.encryption)) {
    return false;
  }
  if (aead) return true;
  if (protection.integrity.empty()) return false;
  if (spec.integrity.empty()) return SuiteByName(protection.integrity) != nullptr;
  return Lists(spec.integrity, protection.integrity);
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
