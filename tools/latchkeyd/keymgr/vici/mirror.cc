#include "tools/latchkeyd/keymgr/vici/mirror.h"

#include <algorithm>

#include "tools/latchkeyd/keymgr/vici/traffic.h"

namespace latchkey::broker::vici {
namespace {

constexpr uint32_t kFirstStatic = 65536;
// Far more than anybody has; what is beyond is not static, or not lost but unknown.
constexpr size_t kMostRemembered = 65536;

// A list's children are kept on their own.
IkeSa Childless(const IkeSa& sa) {
  IkeSa copy = sa;
  copy.children.clear();
  return copy;
}

const ConnConfig* FindConn(const std::vector<ConnConfig>& conns, const std::string& name) {
  const auto it = std::ranges::find(conns, name, &ConnConfig::name);
  return it == conns.end() ? nullptr : &*it;
}

}  // namespace

Mirror::Key Mirror::KeyOf(const Sa& sa) {
  return {sa.key.protocol, sa.key.spi, sa.reqid, sa.source, sa.key.destination};
}

std::vector<Mirror::Key> Mirror::KeysOf(const Child& child) const {
  const auto it = ikes_.find(child.ike);
  if (it == ikes_.end() || !child.sa.installed()) return {};
  const Ike& ike = it->second;
  std::vector<std::pair<Address, Address>> ends = ike.former;
  ends.emplace_back(ike.sa.local.address, ike.sa.remote.address);
  std::vector<Key> keys;
  for (const auto& [local, remote] : ends) {
    keys.emplace_back(child.sa.protocol, child.sa.spi_in, child.sa.reqid, remote, local);
    // The outgoing one comes last in a rekey: without SPI until then.
    if (child.sa.spi_out == 0) continue;
    keys.emplace_back(child.sa.protocol, child.sa.spi_out, child.sa.reqid, local, remote);
  }
  return keys;
}

void Mirror::Index() const {
  if (indexed_) return;
  by_spi_.clear();
  for (const auto& [id, child] : children_) {
    if (!child.sa.installed()) continue;
    by_spi_.emplace(child.sa.spi_in, id);
    by_spi_.emplace(child.sa.spi_out, id);
  }
  indexed_ = true;
}

Identified Mirror::Who(const Ike& ike, const Child& child, bool inbound) const {
  if (!ike.sa.authenticated() || !Plain(ike.sa.peer_id())) return Identified::Nobody();
  if (!ike.auth) return Identified::Pending(ike.sa.peer_id(), ike.sa.local_id);
  Verified verified{
      {ike.sa.peer_id(), ike.sa.local_id, *ike.auth}, false, ike.sa.peering(), child.traffic};
  if (inbound) {
    for (Selector& selector : verified.traffic) selector = Mirrored(selector);
  }
  const auto use = reqids_.find(child.sa.reqid);
  const ConnConfig* conn = FindConn(conns_, ike.sa.name);
  verified.static_reqid = use != reqids_.end() && !use->second.several && conn != nullptr &&
                          conn->FixedRemoteId() == ike.sa.peer_id();
  return Identified::Known(std::move(verified));
}

std::optional<Identified> Mirror::Look(const Sa& sa, bool inbound) const {
  Index();
  const Key key = KeyOf(sa);
  std::optional<Identified> answer;
  const auto [begin, end] = by_spi_.equal_range(sa.key.spi);
  for (auto it = begin; it != end; ++it) {
    const Child& child = children_.at(it->second);
    if ((inbound ? child.sa.spi_in : child.sa.spi_out) != sa.key.spi) continue;
    const std::vector<Key> keys = KeysOf(child);
    if (std::ranges::find(keys, key) == keys.end()) continue;
    Identified who = Who(ikes_.at(child.ike), child, inbound);
    if (!answer) {
      answer = std::move(who);
      continue;
    }
    // One SA, two children: nobody, unless both are of one peer.
    if (who.pending() || answer->pending()) return Identified::Pending();
    if (who.kind != answer->kind || who.verified.identity != answer->verified.identity) {
      return Identified::Nobody(Reason::kAmbiguousPeer);
    }
    answer->verified.static_reqid &= who.verified.static_reqid;
    if (answer->verified.traffic != who.verified.traffic) answer->verified.traffic.clear();
  }
  if (!answer && lost_.contains(key)) return Identified::Nobody(Reason::kKmLost);
  return answer;
}

Mirror::Ike& Mirror::Put(const IkeSa& sa) {
  const auto [it, fresh] = ikes_.try_emplace(Id(sa.id));
  Ike& ike = it->second;
  // Nobody takes back a proof: a list tells of a time before the event that was read before it.
  if (ike.sa.authenticated() && !sa.authenticated()) {
    ike.touched = now_;
    return ike;
  }
  IkeSa childless = Childless(sa);
  if (ike.sa != childless) changed_ = true;
  // A responder goes by no configuration, or another one, until its peer has said who it is.
  if (!fresh && ike.sa.name != childless.name) ike.auth.reset();
  ike.sa = std::move(childless);
  ike.touched = now_;
  if (!ike.sa.eap_id.empty()) ike.auth = "eap";
  // Before that it may have no configuration yet.
  if (ike.auth || !returning_ || !sa.authenticated()) return ike;
  // After a lost connection it may be the one we knew, whose configuration may since have changed;
  // else the configurations were listed just now.
  const auto known = std::ranges::find_if(ikes_, [&](const auto& each) {
    return each.second.auth && !sa.spis.empty() && each.second.sa.spis == sa.spis &&
           each.second.sa.name == sa.name;
  });
  const ConnConfig* conn = FindConn(conns_, sa.name);
  if (known != ikes_.end()) {
    ike.auth = known->second.auth;
  } else {
    ike.auth = conn == nullptr ? "" : conn->RemoteAuth();
  }
  return ike;
}

void Mirror::Put(const ChildSa& sa, uint32_t ike_id) {
  Child& child = children_[Id(sa.id)];
  const uint64_t ike = Id(ike_id);
  if (child.sa != sa || child.ike != ike) {
    changed_ = true;
    indexed_ = false;
  }
  child = {sa, Traffic(sa), ike, now_};
  if (!lost_.empty()) {
    for (const Key& key : KeysOf(child)) lost_.erase(key);
  }
  const Ike& owner = ikes_.at(ike);
  if (sa.reqid < kFirstStatic || !owner.sa.authenticated()) return;
  if (reqids_.size() >= kMostRemembered && !reqids_.contains(sa.reqid)) return;
  const Identity identity{owner.sa.peer_id(), owner.sa.local_id, ""};
  const auto [it, fresh] = reqids_.try_emplace(sa.reqid, ReqidUse{identity, false});
  if (!fresh && it->second.first != identity) it->second.several = true;
}

void Mirror::Reconnected() {
  ++epoch_;
  returning_ = true;
  reqids_.clear();
  departed_.clear();
}

void Mirror::BeginList() {
  list_ = ++now_;
  changed_ = false;
}

void Mirror::Listed(const IkeSa& ike) {
  Put(ike).former.clear();
  for (const ChildSa& child : ike.children) Put(child, ike.id);
}

bool Mirror::EndList() {
  std::set<Key> gone;
  for (auto it = children_.begin(); it != children_.end();) {
    if (it->second.touched >= list_) {
      ++it;
      continue;
    }
    for (const Key& key : KeysOf(it->second)) gone.insert(key);
    it = children_.erase(it);
    changed_ = true;
    indexed_ = false;
  }
  if (!gone.empty()) {
    for (const auto& [id, child] : children_) {
      for (const Key& key : KeysOf(child)) gone.erase(key);
    }
    std::set<Key>& where = returning_ ? lost_ : departed_;
    if (where.size() + gone.size() > kMostRemembered) where.clear();
    where.merge(gone);
  }
  // A child that was touched was so together with its IKE_SA.
  std::erase_if(ikes_, [this](const auto& each) { return each.second.touched < list_; });
  returning_ = false;
  return std::exchange(changed_, false);
}

void Mirror::Heard(const IkeSa& ike) {
  ++now_;
  Put(ike);
  for (const ChildSa& child : ike.children) Put(child, ike.id);
}

void Mirror::Rekeyed(const ChildRekey& rekey) {
  ++now_;
  Put(rekey.ike);
  Put(rekey.from, rekey.ike.id);
  Put(rekey.to, rekey.ike.id);
}

void Mirror::Rekeyed(const IkeRekey& rekey) {
  ++now_;
  Put(rekey.from);
  Put(rekey.to);
  Ike& to = ikes_.at(Id(rekey.to.id));
  Ike& from = ikes_.at(Id(rekey.from.id));
  // The new one is not authenticated again: it is the same peer, as it proved itself.
  if (!to.auth) to.auth = from.auth;
  to.former = from.former;
  for (auto& [id, child] : children_) {
    if (child.ike != Id(rekey.from.id)) continue;
    child.ike = Id(rekey.to.id);
    child.touched = now_;
  }
}

void Mirror::Moved(const IkeUpdate& update) {
  ++now_;
  Ike& ike = Put(update.ike);
  // Its SAs are moved one by one, and charon speaks before it does it.
  ike.former.emplace_back(ike.sa.local.address, ike.sa.remote.address);
  ike.sa.local = update.local;
  ike.sa.remote = update.remote;
  for (auto& [id, child] : children_) {
    if (child.ike == Id(update.ike.id)) child.touched = now_;
  }
}

bool Mirror::SetConns(std::vector<ConnConfig> conns) {
  bool changed = conns_ != conns;
  conns_ = std::move(conns);
  for (auto& [id, ike] : ikes_) {
    if (ike.auth || !ike.sa.authenticated()) continue;
    const ConnConfig* conn = FindConn(conns_, ike.sa.name);
    ike.auth = conn == nullptr ? "" : conn->RemoteAuth();
    changed = true;
  }
  return changed;
}

bool Mirror::unsettled() const {
  return std::ranges::any_of(
      ikes_, [](const auto& each) { return !each.second.auth && each.second.sa.authenticated(); });
}

bool Mirror::ProvesByKey(const Identity& identity) const {
  const auto by_key = [](const AuthConfig& round) { return round.auth == "pubkey"; };
  bool any = false;
  for (const auto& [id, ike] : ikes_) {
    if (!ike.sa.authenticated() || ike.sa.peer_id() != identity.peer_id ||
        ike.sa.local_id != identity.local_id) {
      continue;
    }
    const auto conn = std::ranges::find(conns_, ike.sa.name, &ConnConfig::name);
    if (ike.auth != "pubkey" || conn == conns_.end() || conn->local.empty() ||
        !std::ranges::all_of(conn->local, by_key) || !std::ranges::all_of(conn->remote, by_key)) {
      return false;
    }
    any = true;
  }
  return any;
}

std::optional<Identity> Mirror::PeerOf(uint32_t ike_id) const {
  const auto it = ikes_.find(Id(ike_id));
  if (it == ikes_.end() || !it->second.sa.authenticated()) return std::nullopt;
  const Ike& ike = it->second;
  return Identity{ike.sa.peer_id(), ike.sa.local_id, ike.auth.value_or("")};
}

std::optional<SocketAddress> Mirror::RemoteOf(uint32_t ike_id) const {
  const auto it = ikes_.find(Id(ike_id));
  if (it == ikes_.end()) return std::nullopt;
  return it->second.sa.remote;
}

std::set<std::string> Mirror::IkeNames() const {
  std::set<std::string> names;
  for (const auto& [id, each] : ikes_) names.insert(each.sa.name);
  return names;
}

std::optional<Address> Mirror::SolePeerOf(const std::string& ike) const {
  std::optional<Address> sole;
  for (const auto& [id, each] : ikes_) {
    if (each.sa.name != ike || each.sa.state != "ESTABLISHED") continue;
    if (sole && *sole != each.sa.remote.address) return std::nullopt;
    sole = each.sa.remote.address;
  }
  return sole;
}

}  // namespace latchkey::broker::vici
