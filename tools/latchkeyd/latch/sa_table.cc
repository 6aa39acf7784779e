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

// True when the kernel would let it carry the flow, if a policy does.
bool MayCarry(const KnownSa& known, const Flow& flow) {
  // Outbound, an SA's mark must match the packet's: ours carry the guard's, so none does.
  if (!known.inbound && known.sa.mark_mask != 0) return false;
  return known.inbound ? known.sa.Carries(flow.protocol, flow.remote, flow.local)
                       : known.sa.Carries(flow.protocol, flow.local, flow.remote);
}

bool IsFor(const KnownSa& known, const Flow& flow) {
  const SocketAddress& from = known.inbound ? flow.remote : flow.local;
  const SocketAddress& to = known.inbound ? flow.local : flow.remote;
  return std::ranges::any_of(known.traffic, [&](const Selector& selector) {
    return selector.Matches(flow.protocol, from, to);
  });
}

// Of SAs that the kernel would let carry the flow, those that some policy lets, too. The reqids
// that the flow's policies ask for are those of its own SAs, and `reqid`.
void KeepCovering(std::vector<const KnownSa*>& sas, const Flow& flow, uint32_t reqid) {
  std::set<uint32_t> reqids;
  if (reqid != 0) reqids.insert(reqid);
  for (const KnownSa* known : sas) {
    if (known->sa.protection.mode != Mode::kTunnel) continue;
    // No policy was ever made for one that is nobody's.
    const bool chosen = known->by_reqid() ? IsFor(*known, flow) : IdentityOf(*known).has_value();
    if (chosen) reqids.insert(known->sa.reqid);
  }
  std::erase_if(sas, [&reqids](const KnownSa* known) {
    return known->by_reqid() && !reqids.contains(known->sa.reqid);
  });
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

std::set<Address> SaTable::LocalsOf(const Address& remote) const {
  std::set<Address> locals;
  for (auto it = by_ends_.lower_bound({remote, Address{}});
       it != by_ends_.end() && it->first.first == remote; ++it) {
    locals.insert(it->first.second);
  }
  return locals;
}

std::set<uint16_t> SaTable::FlowPortsOf(const Address& remote, uint8_t protocol,
                                        uint16_t local_port) const {
  std::set<uint16_t> ports;
  for (auto it = by_ends_.lower_bound({remote, Address{}});
       it != by_ends_.end() && it->first.first == remote; ++it) {
    for (const SaKey& key : it->second) {
      const KnownSa& known = sas_.at(key);
      const Selector& selector = known.sa.selector;
      if (known.inbound && selector.OfOneFlow() && selector.protocol == protocol &&
          selector.destination_port == local_port) {
        ports.insert(selector.source_port);
      }
    }
  }
  return ports;
}

void SaTable::Put(const Sa& sa, bool inbound, Identified who, int64_t now) {
  KnownSa known{sa, inbound, std::move(who), next_order_};
  if (sa.protection.mode == Mode::kTunnel && known.who.known()) {
    known.who.verified.peering.local.address = known.local();
    known.who.verified.peering.remote.address = known.remote();
  }
  if (known.who.known()) {
    known.vouched = known.who.verified.identity;
    known.traffic = known.who.verified.traffic;
  }
  if (known.who.pending()) known.pending_since = now;
  auto it = sas_.find(sa.key);
  if (it == sas_.end()) {
    ++next_order_;
    known.inherited = inheriting_ && !known.who.known();
    const auto voucher = vouchers_.find(sa.key);
    if (known.inherited && voucher != vouchers_.end() && SameButTag(voucher->second.sa, sa)) {
      known.vouched = voucher->second.identity;
      known.traffic = voucher->second.traffic;
    }
    it = sas_.emplace(sa.key, std::move(known)).first;
    by_ends_[EndsOf(sa)].push_back(sa.key);
    return;
  }
  KnownSa& old = it->second;
  known.order = old.order;
  if (!known.who.known() && SameButTag(old.sa, sa)) {
    known.vouched = old.vouched;
    known.traffic = old.traffic;
    known.inherited = old.inherited;
  }
  if (known.who.pending() && old.who.pending() && SameButTag(old.sa, sa)) {
    known.pending_since = old.pending_since;
  }
  // To learn who it was all along is no change.
  const bool changed = !Unasked(old) && IdentityOf(old) != IdentityOf(known);
  // What it was for is of the past with it; before anybody said so, it served nobody by that.
  const bool other_traffic = !old.traffic.empty() && old.traffic != known.traffic;
  if (changed || other_traffic || !SameButTag(old.sa, sa)) Remember(old, now);
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
        sa.protection.mode == known.sa.protection.mode && sa.if_id == known.sa.if_id &&
        each.known.traffic == known.traffic && (!known.by_reqid() || sa.reqid == known.sa.reqid)) {
      each.end = now;
      each.turn = ++turn_;
      return;
    }
  }
  past.push_back(Past{known, now, ++turn_});
}

std::vector<const KnownSa*> SaTable::Carrying(const Flow& flow, bool inbound,
                                              uint32_t reqid) const {
  std::vector<const KnownSa*> found;
  const bool whole = flow.local.port != 0 && flow.remote.port != 0;
  for (const Ends& ends : {EndsOf(flow, inbound), Ends{}}) {
    const auto it = by_ends_.find(ends);
    if (it == by_ends_.end()) continue;
    for (const SaKey& key : it->second) {
      const KnownSa& known = sas_.at(key);
      if (!whole && known.sa.selector.OfOneFlow()) continue;
      if (known.inbound == inbound && MayCarry(known, flow)) found.push_back(&known);
    }
  }
  KeepCovering(found, flow, reqid);
  std::ranges::sort(found, [](const KnownSa* a, const KnownSa* b) { return a->order > b->order; });
  return found;
}

std::set<std::optional<Identity>> SaTable::IdentitiesSince(const Flow& flow, int64_t since,
                                                           bool by_reqid, uint64_t turn) const {
  std::vector<const KnownSa*> covering;
  const bool whole = flow.local.port != 0 && flow.remote.port != 0;
  for (const Ends& ends : {EndsOf(flow, /*inbound=*/true), Ends{}}) {
    if (const auto it = by_ends_.find(ends); it != by_ends_.end()) {
      for (const SaKey& key : it->second) {
        const KnownSa& known = sas_.at(key);
        if (!whole && known.sa.selector.OfOneFlow()) continue;
        if (known.inbound && MayCarry(known, flow)) covering.push_back(&known);
      }
    }
    if (const auto it = past_.find(ends); it != past_.end()) {
      for (const Past& past : it->second) {
        if (past.end >= since && past.turn > turn && MayCarry(past.known, flow))
          covering.push_back(&past.known);
      }
    }
  }
  if (by_reqid) KeepCovering(covering, flow, 0);
  std::set<std::optional<Identity>> identities;
  for (const KnownSa* known : covering) identities.insert(IdentityOf(*known));
  return identities;
}

void SaTable::ForgetBefore(int64_t time) {
  for (auto& [ends, past] : past_) {
    std::erase_if(past, [time](const Past& each) { return each.end < time; });
  }
  std::erase_if(past_, [](const auto& each) { return each.second.empty(); });
}

}  // namespace latchkey::broker
