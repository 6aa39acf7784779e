// The public keys behind an identity, for channel bindings (docs/CHANNEL-BINDING.md).
//
// charon shows the certificates it holds, its own, loaded and received ones, and not which of them
// authenticated an IKE_SA. So a key counts only where every end-entity certificate that carries the
// id has that same key.
#include <algorithm>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/spki.h"
#include "tools/latchkeyd/keymgr/vici/vici.h"

namespace latchkey::broker {
namespace {

using vici::Section;

constexpr size_t kMostCerts = 64;
constexpr size_t kMostQuestions = 4096;

// Returns the one key of `certs`; empty where there is none beyond doubt.
std::string OneKey(const std::vector<Section>& certs, bool own) {
  if (certs.size() >= kMostCerts) return {};
  std::string found;
  for (const Section& cert : certs) {
    const std::string type(cert.Value("type").value_or(""));
    // Revocation lists and the like have subjects too; a bare key may be anybody's.
    if (type != "X509" && type != "PUBKEY") continue;
    if (type == "X509" && cert.Value("flag") == "CA") continue;
    const std::optional<std::string> key =
        type == "X509" ? vici::SubjectPublicKeyInfo(cert.Value("data").value_or("")) : std::nullopt;
    if (!key || (!found.empty() && found != *key)) return {};
    if (own && cert.Value("has_privkey") != "yes") return {};
    found = *key;
  }
  return found;
}

}  // namespace

uint64_t ViciKeyManager::AskKeys(const Identity& identity) {
  if (link_ != Link::kUp || identity.auth != "pubkey" || identity.local_id.empty() ||
      !mirror_.ProvesByKey(identity) || questions_.size() >= kMostQuestions) {
    return 0;
  }
  const uint64_t ticket = next_ticket_++;
  questions_[ticket] = {};
  for (const std::string& id : {identity.peer_id, identity.local_id}) {
    Command command{"list-certs", {}, {}, ticket};
    command.message.Add("subject", id);
    commands_.push_back(std::move(command));
  }
  AskConns();
  Finally();
  return ticket;
}

void ViciKeyManager::OnCerts(const Command& command) {
  const std::vector<Section> certs = std::exchange(certs_coming_, {});
  const auto it = questions_.find(command.keys);
  if (it == questions_.end()) return;
  Keys& keys = it->second;
  if (!std::exchange(keys.peer_listed, true)) {
    keys.peer = OneKey(certs, /*own=*/false);
    return;
  }
  KeyEvent event;
  event.kind = KeyEvent::Kind::kKeys;
  event.ticket = command.keys;
  event.peer_key = std::move(keys.peer);
  event.own_key = OneKey(certs, /*own=*/true);
  questions_.erase(it);
  happened_.push_back(std::move(event));
}

void ViciKeyManager::LoseQuestions() {
  std::erase_if(commands_, [](const Command& command) { return command.keys != 0; });
  if (asking_.keys != 0) asking_ = {};
  certs_coming_.clear();
  for (const auto& [ticket, keys] : std::exchange(questions_, {})) {
    KeyEvent event;
    event.kind = KeyEvent::Kind::kKeys;
    event.ticket = ticket;
    happened_.push_back(std::move(event));
  }
}

}  // namespace latchkey::broker
