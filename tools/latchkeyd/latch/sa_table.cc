#include "tools/latchkeyd/latch/sa_table.h"

#include <algorithm>
#include <utility>

namespace latchkey::broker {
namespace {

// How those prove who they are whom an administrator wrote down (policy/pad.cc).
constexpr const char* kManualAuth = "manual";

// One whose peer cannot be asked is who it was.
std::optional<Identity> IdentityOf(const KnownSa& known) {
  if (known.who.known()) return known.who.verified.identity;
  return known.doubtful() ? known.vouched : std::nullopt;
}

// True while nobody has ever been asked for it who could answer.
bool Unasked(const KnownSa& known) {
  return !known.vouched && (known.who.pending() || known.who.why == Reason::kKmLost);
}

bool Carries(const KnownSa& known, const Flow& flow) {
  // Outbound, an SA's mark must match the packet's: ours carry the guard's, so none does.
  if (!known.inbound && known.sa.mark_mask != 0) return false;
  return known.inbound ? known.sa.Carries(flow.protocol, flow.remote, flow.local)
                       : known.sa.Carries(flow.protocol, flow.local, flow.remote);
}

}  // namespace

std::optional<Identity> KnownSa::Vouching() const {
  std::optional<Identity> identity = IdentityOf(*this);
  if (identity && identity->auth == kManualAuth) return std::nullopt;
  return identity;
}

void SaTable::BeginInheriting(const std::vector<Voucher>& vouchers) {
  inheriting_ = true;
  for (const Voucher& voucher : vouchers) vouchers_.insert_or_assign(voucher.sa.key, voucher);
}

void SaTable::EndInheriting() {
  inheriting_ = false;
  vouchers_.clear();
}

const KnownSa* SaTable::Find(const SaKey& key) const {
  const auto it = sas_.find(key);
  return it == sas_.end() ? nullptr : &it->second;
}

SaTable::Ends SaTable::EndsOf(const Sa& sa) {
  if (sa.protection.mode != Mode::kTransport) return {};
  return {sa.source, sa.key.destination};
}

SaTable::Ends SaTable::EndsOf(const Flow& flow, bool inbound) {
  if (inbound) return {flow.remote.address, flow.local.address};
  return {flow.local.address, flow.remote.address};
}

void SaTable::Put(const Sa& sa, bool inbound, Identified who, int64_t now) {
  KnownSa known{sa, inbound, std::move(who), next_order_};
  if (sa.protection.mode == Mode::kTunnel && known.who.known()) {
    known.who.verified.peering.local.address = known.local();
    known.who.verified.peering.remote.address = known.remote();
  }
  if (known.who.known()) known.vouched = known.who.verified.identity;
  if (known.who.pending()) known.pending_since = now;
  auto it = sas_.find(sa.key);
  if (it == sas_.end()) {
    ++next_order_;
    known.inherited = inheriting_ && !known.who.known();
    const auto voucher = vouchers_.find(sa.key);
    if (known.inherited && voucher != vouchers_.end() && voucher->second.sa == sa) {
      known.vouched = voucher->second.identity;
    }
    it = sas_.emplace(sa.key, std::move(known)).first;
    by_ends_[EndsOf(sa)].push_back(sa.key);
    return;
  }
  KnownSa& old = it->second;
  known.order = old.order;
  if (!known.who.known() && old.sa == sa) {
    known.vouched = old.vouched;
    known.inherited = old.inherited;
  }
  if (known.who.pending() && old.who.pending() && old.sa == sa) {
    known.pending_since = old.pending_since;
  }
  // To learn who it was all along is no change.
  const bool changed = !Unasked(old) && IdentityOf(old) != IdentityOf(known);
  if (changed || old.sa != sa) Remember(old, now);
  if (EndsOf(old.sa) != EndsOf(sa)) {
    std::erase(by_ends_[EndsOf(old.sa)], sa.key);
    by_ends_[EndsOf(sa)].push_back(sa.key);
  }
  old = std::move(known);
}

void SaTable::Erase(const SaKey& key, int64_t now, bool unused) {
  auto it = sas_.find(key);
  if (it == sas_.end()) return;
  if (!unused || IdentityOf(it->second)) Remember(it->second, now);
  auto ends = by_ends_.find(EndsOf(it->second.sa));
  std::erase(ends->second, key);
  if (ends->second.empty()) by_ends_.erase(ends);
  sas_.erase(it);
}

// Only what came in matters later. Rekeys with one peer are one piece of the past.
void SaTable::Remember(const KnownSa& known, int64_t now) {
  if (!known.inbound || known.sa.larval) return;
  std::vector<Past>& past = past_[EndsOf(known.sa)];
  for (Past& each : past) {
    const Sa& sa = each.known.sa;
    if (IdentityOf(each.known) == IdentityOf(known) && sa.selector == known.sa.selector &&
        sa.protection.mode == known.sa.protection.mode && sa.if_id == known.sa.if_id) {
      each.end = now;
      return;
    }
  }
  past.push_back(Past{known, now});
}

void SaTable::KeepOnly(const std::set<SaKey>& keys, int64_t now) {
  for (auto it = sas_.begin(); it != sas_.end();) {
    const SaKey key = (it++)->first;
    if (!keys.contains(key)) Erase(key, now);
  }
}

std::vector<const KnownSa*> SaTable::Carrying(const Flow& flow, bool inbound) const {
  std::vector<const KnownSa*> found;
  const bool whole = flow.local.port != 0 && flow.remote.port != 0;
  for (const Ends& ends : {EndsOf(flow, inbound), Ends{}}) {
    const auto it = by_ends_.find(ends);
    if (it == by_ends_.end()) continue;
    for (const SaKey& key : it->second) {
      const KnownSa& known = sas_.at(key);
      if (!whole && known.sa.selector.OfOneFlow()) continue;
      if (known.inbound == inbound && Carries(known, flow)) found.push_back(&known);
    }
  }
  std::ranges::sort(found, [](const KnownSa* a, const KnownSa* b) { return a->order > b->order; });
  return found;
}

std::set<std::optional<Identity>> SaTable::IdentitiesSince(const Flow& flow, int64_t since) const {
  std::set<std::optional<Identity>> identities;
  for (const KnownSa* known : Carrying(flow, /*inbound=*/true)) {
    identities.insert(IdentityOf(*known));
  }
  for (const Ends& ends : {EndsOf(flow, /*inbound=*/true), Ends{}}) {
    const auto it = past_.find(ends);
    if (it == past_.end()) continue;
    for (const Past& past : it->second) {
      if (past.end >= since && Carries(past.known, flow)) {
        identities.insert(IdentityOf(past.known));
      }
    }
  }
  return identities;
}

void SaTable::ForgetBefore(int64_t time) {
  for (auto& [ends, past] : past_) {
    std::erase_if(past, [time](const Past& each) { return each.end < time; });
  }
  std::erase_if(past_, [](const auto& each) { return each.second.empty(); });
}

}  // namespace latchkey::broker
