// Whom an unconnected UDP socket has to do with. A peer's datagrams are bound to the identity, and
// the protection, that they began to move with: as long as an SA of it is there, or was within the
// last kPeerMs, those of nobody else move (RFC 5660, 2.1: a latch for each of them).

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/held.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// How long a peer that has no SA left stays the one that its address was latched to.
constexpr int64_t kPeerMs = 300'000;
// How often it is looked whether another socket still has a peer latched to somebody else.
constexpr int64_t kRivalMs = 1'000;
// What all SAs between a socket and a peer's address say of who it is.
struct Behind {
  std::set<std::optional<Identity>> identities;  // an unknown one as nothing
  bool pending = false;                          // one's name is being asked for
  bool doubtful = false;                         // nobody can vouch for one any more

  void Add(const KnownSa& known, bool late) {
    if (known.who.known()) {
      identities.insert(known.who.verified.identity);
    } else if (known.doubtful() && known.vouched) {
      identities.insert(known.vouched);
      doubtful = true;
    } else if (known.who.pending() && !late) {
      pending = true;
    } else {
      identities.insert(std::nullopt);
    }
  }
};

}  // namespace

// By the first rule that covers it as an incoming one; else as an outgoing one.
policy::Verdict Engine::DecideDatagram(const Entry& entry, const Flow& flow, bool& incoming) const {
  Flow decided = flow;
  decided.direction = Direction::kIn;
  incoming = policy::FirstMatch(*entry.policy, decided) != nullptr;
  if (!incoming) decided.direction = Direction::kOut;
  const bool same_host = flow.SameHost() || kernel_.IsLocalAddress(flow.remote.address);
  return policy::Decide(system(), *entry.policy, entry.requester, decided, same_host);
}

// Makes these the entries and admissions of a peer. What is no longer allowed goes first: the
// standing BLOCK stands beneath. What the kernel refuses is tried again at the next look.
void Engine::Provide(Entry& entry, HeldPeer& peer, const std::vector<Guard>& guards,
                     const std::set<DatagramAdmission>& admissions) {
  std::erase_if(peer.admissions, [&](const DatagramAdmission& each) {
    if (admissions.contains(each)) return false;
    kernel_.Dismiss(each);
    return true;
  });
  std::erase_if(peer.guards, [&](const Guard& each) {
    if (std::ranges::find(guards, each) != guards.end()) return false;
    guards_.Drop(each);
    return true;
  });
  for (const DatagramAdmission& each : admissions) {
    if (peer.admissions.contains(each)) continue;
    if (Result<void> done = kernel_.Admit(each); !done) {
      observer_.OnWarning("a peer's datagrams cannot be taken in by latch " +
                          std::to_string(entry.latch.id) + ": " + done.error().ToString());
      continue;
    }
    peer.admissions.insert(each);
  }
  for (const Guard& each : guards) {
    if (std::ranges::find(peer.guards, each) != peer.guards.end()) continue;
    if (Result<void> done = HoldOver(each); !done) {
      observer_.OnWarning("a peer cannot be sent to by latch " + std::to_string(entry.latch.id) +
                          ": " + done.error().ToString());
      continue;
    }
    peer.guards.push_back(each);
  }
}

// Sockets of one port share what leaves for a peer: while one has it latched to somebody, no other
// has it latched to somebody else.
const Identity* Engine::RivalOf(const Entry& entry, const SocketAddress& remote,
                                const Identity& identity) const {
  for (const uint64_t id : database_.listeners()) {
    const Entry& other = *database_.Find(id);
    if (&other == &entry || !other.held ||
        !SharePlace(other.latch.flow.local, entry.latch.flow.local)) {
      continue;
    }
    for (const auto& [theirs, peer] : other.held->peers) {
      const bool meets = theirs.address == remote.address &&
                         (theirs.port == 0 || remote.port == 0 || theirs.port == remote.port);
      if (meets && peer.identity && *peer.identity != identity) return &*peer.identity;
    }
  }
  return nullptr;
}

// Looks at the SAs with one peer. True when datagrams can move.
bool Engine::RefreshPeer(Entry& entry, const SocketAddress& remote, HeldPeer& peer) {
  if (peer.clear) return true;
  const int64_t now = kernel_.NowMs();
  const SocketAddress bound = entry.latch.flow.local;
  std::set<Address> locals;
  if (bound.address.IsAny()) {
    locals = sas_.LocalsOf(remote.address);
  } else if (bound.address.family == remote.address.family) {
    locals.insert(bound.address);
  }
  struct Way {
    Flow flow;
    policy::Verdict verdict;
    std::vector<const KnownSa*> out;
    std::vector<const KnownSa*> in;
  };
  std::vector<Way> ways;
  Behind behind;
  peer.again_at = 0;
  const auto look_again = [&peer](int64_t when) {
    if (peer.again_at == 0 || when < peer.again_at) peer.again_at = when;
  };
  for (const Address& local : stale_ ? std::set<Address>{} : locals) {
    Way way;
    way.flow = Flow{Direction::kIn, kProtocolUdp, {local, bound.port}, remote};
    bool incoming = false;
    way.verdict = DecideDatagram(entry, way.flow, incoming);
    const bool by_rule = incoming && !way.verdict.implicit;
    const bool unique = way.verdict.demand.unique && remote.port == 0;  // its flows are each a peer
    if (way.verdict.outcome != policy::Outcome::kProtect || unique || way.verdict.permit ||
        (!peer.asked && !by_rule)) {
      continue;
    }
    way.out = sas_.Carrying(way.flow, /*inbound=*/false);
    way.in = sas_.Carrying(way.flow, /*inbound=*/true);
    for (const auto* list : {&way.out, &way.in}) {
      for (const KnownSa* known : *list) {
        const int64_t until = known->pending_since + options_.name_ms;
        behind.Add(*known, now >= until);
        if (known->who.pending()) look_again(until);
      }
    }
    ways.push_back(std::move(way));
  }
  if (peer.identity) {
    if (behind.identities.contains(peer.identity)) {
      peer.lost_at = 0;
    } else if (peer.lost_at == 0) {
      peer.lost_at = now;
    }
    if (peer.lost_at != 0 && now - peer.lost_at >= kPeerMs) {
      peer.identity.reset();
      peer.lost_at = 0;
    }
    if (peer.lost_at != 0) look_again(peer.lost_at + kPeerMs);
  }
  Error why{"serve peer", "", Reason::kNone};
  const bool another = std::ranges::any_of(
      behind.identities, [&peer](const auto& each) { return each != peer.identity; });
  if (peer.identity && another) {
    why.reason = Reason::kConflictSa;
    why.value = "it is latched to \"" + peer.identity->peer_id + "\", and others have SAs for it";
  } else if (behind.identities.size() > 1) {
    why.reason = Reason::kAmbiguousPeer;
    why.value = std::to_string(behind.identities.size()) + " identities have SAs for it";
  } else if (!peer.identity && entry.held->adopted_at != 0) {
    // Whom its datagrams belonged to before us is not known: nobody else may have been there.
    const int64_t since = std::max(entry.held->adopted_at, now - kPeerMs);
    for (const Way& way : ways) {
      auto all = sas_.IdentitiesSince(way.flow, since, /*by_reqid=*/false);
      for (const Voucher& each : departed_) {
        const bool its = each.sa.Carries(kProtocolUdp, remote, way.flow.local);
        if (its && now - entry.held->adopted_at < kPeerMs) all.insert(each.identity);
      }
      if (all.size() < 2) continue;
      why.reason = Reason::kAmbiguousPeer;
      why.value = "others had SAs for it a moment ago";
      look_again(now + kPeerMs);
    }
  }
  if (!behind.doubtful) peer.doubt_since = 0;
  if (behind.doubtful && peer.doubt_since == 0) peer.doubt_since = now;
  std::vector<Guard> guards;
  std::set<DatagramAdmission> admissions;
  for (const Way& way : why.reason != Reason::kNone ? std::vector<Way>{} : ways) {
    std::vector<SaKey> usable;
    std::optional<Guard> guard;
    if (behind.doubtful) {
      // Whoever could vouch for them may come back: what moves goes on for so long.
      if (!peer.identity) continue;
      if (now - peer.doubt_since >= options_.km_grace_ms) {
        why = Error{"serve peer", "whoever knew it cannot be asked", Reason::kKmLost};
        continue;
      }
      look_again(peer.doubt_since + options_.km_grace_ms);
      for (const Guard& each : peer.guards) {
        if (each.selector.source.Contains(way.flow.local.address)) guard = each;
      }
      for (const KnownSa* known : way.in) {
        if (known->vouched == peer.identity) usable.push_back(known->sa.key);
      }
      if (way.out.empty()) guard.reset();
    } else {
      std::vector<const KnownSa*> named[2] = {way.out, way.in};
      if (peer.identity) {  // it goes on under what has a name already
        for (auto& list : named) {
          std::erase_if(list, [](const KnownSa* known) { return known->who.pending(); });
        }
      }
      const Result<SaPair> pair = ChoosePair(named[0], named[1], way.verdict.demand);
      if (!pair) {
        const bool lacks = IsLack(pair.error().reason) || behind.pending;
        if (peer.asked && !lacks) why = pair.error();
        continue;
      }
      const Protection& protection = pair->in->sa.protection;
      if (protection.mode != Mode::kTransport) {
        why = Error{"serve peer", "not in transport mode", Reason::kUnsupported};
        continue;
      }
      if (peer.identity && peer.protection != protection) {
        why =
            Error{"serve peer", "it began with " + peer.protection.ToString(), Reason::kConflictSa};
        continue;
      }
      const Identity identity = pair->in->who.verified.identity;
      if (const Identity* rival = RivalOf(entry, remote, identity)) {
        why = Error{"serve peer",
                    "another socket of the port has it latched to \"" + rival->peer_id + "\"",
                    Reason::kConflictSa};
        look_again(now + kRivalMs);
        continue;
      }
      for (const KnownSa* known : named[1]) usable.push_back(known->sa.key);
      // Whoever says that the reqid fixes the peer need not wait for the name of the next one.
      for (const KnownSa* known : way.in) {
        const bool next = peer.identity && way.verdict.demand.pin == Pin::kReqid &&
                          known->who.pending() && known->sa.reqid == pair->in->sa.reqid;
        if (next) usable.push_back(known->sa.key);
      }
      guard = DatagramGuard(Host(way.flow.local.address), bound.port, remote, options_.guard_mark);
      guard->action = RequireAction(pair->out->sa.key.protocol);
      guard->reqid = pair->out->sa.reqid;
      const Protection began = protection;
      if (!peer.identity) {
        peer.identity = identity;
        peer.protection = began;
      }
    }
    bool told_apart = false;
    for (const SaKey& key : usable) {
      const uint32_t tag = TagOf(key);
      if (tag == 0) continue;
      told_apart = true;
      admissions.insert({entry.hint.cookie, remote, tag});
    }
    if (!told_apart && !usable.empty()) {
      why = Error{"serve peer", "its SAs cannot be told from others", Reason::kUnsupported};
    }
    // Whoever could not be heard is not spoken to either.
    if (told_apart && guard) guards.push_back(*guard);
  }
  Provide(entry, peer, guards, admissions);
  if (std::exchange(peer.why, why.reason) != why.reason && why.reason != Reason::kNone) {
    const Client client{entry.session, entry.policy, entry.requester, entry.hint.pid,
                        entry.latch.program};
    observer_.OnRefusal(client, Flow{Direction::kIn, kProtocolUdp, bound, remote}, why.reason,
                        why.ToString());
  }
  return !peer.guards.empty();
}

// Looks at all peers; with `peers`, at those at these addresses.
void Engine::RefreshHeld(Entry& entry, const std::set<Address>* peers) {
  std::set<Address> addresses;
  if (peers != nullptr) addresses = *peers;
  for (const auto& [key, known] : sas_.all()) {
    if (peers == nullptr && known.inbound && !known.sa.larval) addresses.insert(known.remote());
  }
  const SocketAddress& bound = entry.latch.flow.local;
  for (const Address& address : addresses) {
    if (PortsMatter(*entry.held, address)) continue;
    const std::set<Address> locals = sas_.LocalsOf(address);
    const bool fits = std::ranges::any_of(locals, [&](const Address& local) {
      return bound.address.IsAny() || bound.address == local;
    });
    const bool rules = NeedAt(*entry.held, address) == DatagramRegion::Need::kTag;
    if (!fits || !rules) continue;
    entry.held->peers.try_emplace(SocketAddress{address, 0});
    for (const uint16_t port : sas_.FlowPortsOf(address, kProtocolUdp, bound.port)) {
      entry.held->peers.try_emplace(SocketAddress{address, port});
    }
  }
  for (auto it = entry.held->peers.begin(); it != entry.held->peers.end();) {
    auto& [remote, peer] = *it;
    const bool looked = peers == nullptr || peers->contains(remote.address);
    if (looked) RefreshPeer(entry, remote, peer);
    // It may begin anew, as one that was never there.
    const bool gone =
        remote.port == 0
            ? sas_.LocalsOf(remote.address).empty()
            : !sas_.FlowPortsOf(remote.address, kProtocolUdp, bound.port).contains(remote.port);
    const bool nobody = looked && !peer.asked && !peer.identity && gone;
    it = nobody ? entry.held->peers.erase(it) : std::next(it);
  }
}

void Engine::CheckHeldInTime() {
  const int64_t now = kernel_.NowMs();
  for (const uint64_t id : database_.listeners()) {
    Entry& entry = *database_.Find(id);
    if (!entry.held) continue;
    std::set<Address> due;
    for (const auto& [remote, peer] : entry.held->peers) {
      if (peer.again_at != 0 && now >= peer.again_at) due.insert(remote.address);
    }
    if (!due.empty()) RefreshHeld(entry, &due);
  }
}

void Engine::LetGoOfPeers(Entry& entry) {
  if (!entry.held) return;
  for (auto& [remote, peer] : entry.held->peers) {
    for (const Guard& guard : peer.guards) guards_.Drop(guard);
  }
  entry.held->peers.clear();
  kernel_.ForgetDatagrams(entry.hint.cookie);
}

}  // namespace latchkey::broker
