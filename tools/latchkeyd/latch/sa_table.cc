#include "tools/latchkeyd/latch/sa_table.h"

#include <algorithm>
#include <utility>

namespace latchkey::broker {
namespace {

std::optional<Identity> IdentityOf(const KnownSa& known) {
  if (!known.who.known()) return std::nullopt;
  return known.who.verified.identity;
}

bool Carries(const KnownSa& known, const Flow& flow) {
  // Outbound, an SA's mark must match the packet's: ours carry the guard's, so none does.
  if (!known.inbound && known.sa.mark_mask != 0) return false;
  return known.inbound ? known.sa.Carries(flow.protocol, flow.remote, flow.local)
                       : known.sa.Carries(flow.protocol, flow.local, flow.remote);
}

}  // namespace

void SaTable::Put(const Sa& sa, bool inbound, Identified who, int64_t now) {
  KnownSa known{sa, inbound, std::move(who), next_order_};
  if (sa.protection.mode == Mode::kTunnel && known.who.known()) {
    known.who.verified.peering.local.address = known.local();
    known.who.verified.peering.remote.address = known.remote();
  }
  auto it = sas_.find(sa.key);
  if (it == sas_.end()) {
    ++next_order_;
    sas_.emplace(sa.key, std::move(known));
    return;
  }
  known.order = it->second.order;
  // To learn who it was all along is no change.
  const bool changed = !it->second.who.pending() && IdentityOf(it->second) != IdentityOf(known);
  if (changed || it->second.sa != sa) {
    past_.push_back(Past{it->second, now});
  }
  it->second = std::move(known);
}

void SaTable::Erase(const SaKey& key, int64_t now) {
  auto it = sas_.find(key);
  if (it == sas_.end()) return;
  past_.push_back(Past{std::move(it->second), now});
  sas_.erase(it);
}

void SaTable::KeepOnly(const std::set<SaKey>& keys, int64_t now) {
  for (auto it = sas_.begin(); it != sas_.end();) {
    const SaKey key = (it++)->first;
    if (!keys.contains(key)) Erase(key, now);
  }
}

std::vector<const KnownSa*> SaTable::Carrying(const Flow& flow, bool inbound) const {
  std::vector<const KnownSa*> found;
  for (const auto& [key, known] : sas_) {
    if (known.inbound == inbound && Carries(known, flow)) found.push_back(&known);
  }
  std::ranges::sort(found, [](const KnownSa* a, const KnownSa* b) { return a->order > b->order; });
  return found;
}

std::set<std::optional<Identity>> SaTable::IdentitiesSince(const Flow& flow, int64_t since) const {
  std::set<std::optional<Identity>> identities;
  for (const KnownSa* known : Carrying(flow, /*inbound=*/true)) {
    identities.insert(IdentityOf(*known));
  }
  for (const Past& past : past_) {
    if (past.end >= since && past.known.inbound && Carries(past.known, flow)) {
      identities.insert(IdentityOf(past.known));
    }
  }
  return identities;
}

void SaTable::ForgetBefore(int64_t time) {
  std::erase_if(past_, [time](const Past& past) { return past.end < time; });
}

}  // namespace latchkey::broker
