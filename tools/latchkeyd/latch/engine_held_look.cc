// A look at one peer of an unconnected UDP socket: whose its SAs are, whether they contradict what
// its datagrams began with, and which of them serve it.

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

void LookAgain(HeldPeer& peer, int64_t when) {
  if (peer.again_at == 0 || when < peer.again_at) peer.again_at = when;
}

}  // namespace

// The SAs with a peer, by each of our addresses where a rule protects.
PeerLook Engine::LookAtPeer(const Entry& entry, const SocketAddress& remote, HeldPeer& peer) const {
  PeerLook look;
  const SocketAddress& bound = entry.latch.flow.local;
  std::set<Address> locals;
  if (stale_) {
    if (peer.identity) {
      look.why = Error{"serve peer", "the SAs cannot be read", Reason::kSuspectGap};
    }
  } else if (bound.address.IsAny()) {
    locals = sas_.LocalsOf(remote.address);
  } else if (bound.address.family == remote.address.family) {
    locals.insert(bound.address);
  }
  for (const Address& local : locals) {
    PeerLook::Way way;
    way.flow = Flow{Direction::kIn, kProtocolUdp, {local, bound.port}, remote};
    way.verdict = DecideDatagram(entry, way.flow);
    const bool by_rule = IsIncoming(way.verdict) && !way.verdict.implicit;
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
        look.Add(*known, kernel_.NowMs() >= until);
        if (known->who.pending()) LookAgain(peer, until);
      }
    }
    look.ways.push_back(std::move(way));
  }
  return look;
}

// Ends what a peer was bound to when no SA of it has been there for long enough.
void Engine::Unbind(HeldPeer& peer, const PeerLook& look) {
  const int64_t now = kernel_.NowMs();
  if (!look.doubtful) peer.doubt_since = 0;
  if (look.doubtful && peer.doubt_since == 0) peer.doubt_since = now;
  if (!peer.identity) return;
  if (look.identities.contains(peer.identity)) {
    peer.lost_at = 0;
  } else if (peer.lost_at == 0) {
    peer.lost_at = now;
  }
  if (peer.lost_at == 0) return;
  if (now - peer.lost_at < kPeerMs) return LookAgain(peer, peer.lost_at + kPeerMs);
  peer.identity.reset();
  peer.lost_at = 0;
  if (const Entry* latch = database_.Find(peer.latch); latch != nullptr && latch->admin_broken) {
    NoteAdminBreak(*latch, /*broken=*/false);
  }
  EndPeerLatch(peer, Reason::kNoSa);
}

// Whether the SAs contradict what the peer is bound to, or each other.
void Engine::JudgePeer(const Entry& entry, const SocketAddress& remote, HeldPeer& peer,
                       PeerLook& look) const {
  const Entry* latch = database_.Find(peer.latch);
  if (peer.identity && latch != nullptr && latch->admin_broken) {
    look.why.reason = Reason::kAdmin;
    look.why.value = "its latch was broken by the administrator";
  } else if (entry.held->regions.empty()) {  // AdoptHeld: its socket is blocked
    look.why = Error{"serve peer", "its socket could not be held anew", Reason::kSuspectGap};
  } else if (const std::string shut = WhyShut(entry, remote.address); !shut.empty()) {
    look.why = Error{"serve peer", shut, Reason::kNoXfrm};
  }
  if (look.why.reason != Reason::kNone) return;
  const bool another = std::ranges::any_of(
      look.identities, [&peer](const auto& each) { return each != peer.identity; });
  if (peer.identity && another) {
    look.why.reason = Reason::kConflictSa;
    look.why.value =
        "it is latched to \"" + peer.identity->peer_id + "\", and others have SAs for it";
  } else if (look.identities.size() > 1) {
    look.why.reason = Reason::kAmbiguousPeer;
    look.why.value = std::to_string(look.identities.size()) + " identities have SAs for it";
  } else if (!peer.identity && entry.held->adopted_at != 0) {
    // Whom its datagrams belonged to before us is not known: nobody else may have been there.
    const int64_t now = kernel_.NowMs();
    const int64_t since = std::max(entry.held->adopted_at, now - kPeerMs);
    for (const PeerLook::Way& way : look.ways) {
      auto all = sas_.IdentitiesSince(way.flow, since, /*by_reqid=*/false);
      for (const Voucher& each : departed_) {
        const bool its = each.sa.Carries(kProtocolUdp, remote, way.flow.local);
        if (its && now - entry.held->adopted_at < kPeerMs) all.insert(each.identity);
      }
      if (all.size() < 2) continue;
      look.why.reason = Reason::kAmbiguousPeer;
      look.why.value = "others had SAs for it a moment ago";
      LookAgain(peer, now + kPeerMs);
    }
  }
}

// What serves a peer while nobody can vouch for its SAs: whoever could may come back, and what
// moves goes on for so long.
std::vector<SaKey> Engine::ServeInDoubt(HeldPeer& peer, const PeerLook::Way& way, PeerLook& look,
                                        std::optional<Guard>& guard) const {
  std::vector<SaKey> usable;
  if (!peer.identity) return usable;
  if (kernel_.NowMs() - peer.doubt_since >= options_.km_grace_ms) {
    look.why = Error{"serve peer", "whoever knew it cannot be asked", Reason::kKmLost};
    return usable;
  }
  LookAgain(peer, peer.doubt_since + options_.km_grace_ms);
  for (const Guard& each : peer.guards) {
    if (each.selector.source.Contains(way.flow.local.address)) guard = each;
  }
  for (const KnownSa* known : way.in) {
    const bool transport = known->sa.protection.mode == Mode::kTransport;
    if (known->vouched == peer.identity && transport) usable.push_back(known->sa.key);
  }
  if (way.out.empty()) guard.reset();
  return usable;
}

// The pair by which a peer is served, and all under which it may be heard; binds it to whose they
// are where it is bound to nobody.
std::vector<SaKey> Engine::ServeBySas(const Entry& entry, HeldPeer& peer, const PeerLook::Way& way,
                                      PeerLook& look, std::optional<Guard>& guard) const {
  const SocketAddress& remote = way.flow.remote;
  std::vector<const KnownSa*> named[2] = {way.out, way.in};
  if (peer.identity) {  // it goes on under what has a name already
    for (auto& list : named) {
      std::erase_if(list, [](const KnownSa* known) { return known->who.pending(); });
    }
  }
  const Result<SaPair> pair = ChoosePair(named[0], named[1], way.verdict.demand);
  if (!pair) {
    const bool lacks = IsLack(pair.error().reason) || look.pending;
    if ((peer.asked || peer.identity) && !lacks) look.why = pair.error();
    return {};
  }
  const Protection& protection = pair->in->sa.protection;
  if (protection.mode != Mode::kTransport) {
    look.why = Error{"serve peer", "not in transport mode", Reason::kUnsupported};
    return {};
  }
  if (peer.identity && peer.protection != protection) {
    look.why =
        Error{"serve peer", "it began with " + peer.protection.ToString(), Reason::kConflictSa};
    return {};
  }
  const Identity identity = pair->in->who.verified.identity;
  if (const Identity* rival = RivalOf(entry, remote, identity)) {
    look.why = Error{"serve peer",
                     "another socket of the port has it latched to \"" + rival->peer_id + "\"",
                     Reason::kConflictSa};
    LookAgain(peer, kernel_.NowMs() + kRivalMs);
    return {};
  }
  std::vector<SaKey> usable;
  for (const KnownSa* known : named[1]) usable.push_back(known->sa.key);
  // Whoever says that the reqid fixes the peer need not wait for the name of the next one.
  for (const KnownSa* known : way.in) {
    const bool next = peer.identity && way.verdict.demand.pin == Pin::kReqid &&
                      known->who.pending() && known->sa.reqid == pair->in->sa.reqid;
    if (next) usable.push_back(known->sa.key);
  }
  guard =
      DatagramGuard(Host(way.flow.local.address), way.flow.local.port, remote, options_.guard_mark);
  guard->action = RequireAction(pair->out->sa.key.protocol);
  guard->reqid = pair->out->sa.reqid;
  if (look.way == nullptr) {
    look.way = &way;
    look.out = pair->out;
    look.in = pair->in;
  }
  if (!peer.identity) {
    peer.identity = identity;
    peer.protection = protection;
  }
  return usable;
}

// What is to stand for a peer by one of our addresses.
void Engine::ServePeer(const Entry& entry, HeldPeer& peer, const PeerLook::Way& way,
                       PeerLook& look) {
  std::optional<Guard> guard;
  const std::vector<SaKey> usable = look.doubtful ? ServeInDoubt(peer, way, look, guard)
                                                  : ServeBySas(entry, peer, way, look, guard);
  bool told_apart = false;
  for (const SaKey& key : usable) {
    const uint32_t tag = TagOf(key);
    if (tag == 0) continue;
    told_apart = true;
    look.admissions.insert({entry.hint.cookie, way.flow.remote, tag});
    look.proofs.insert(TagProof(sas_.Find(key)->sa, tag, options_.tag_mask));
  }
  if (!told_apart && !usable.empty()) {
    look.why = Error{"serve peer", "its SAs cannot be told from others", Reason::kUnsupported};
  }
  // Whoever could not be heard is not spoken to either.
  if (told_apart && guard) look.guards.push_back(*guard);
}

}  // namespace latchkey::broker
