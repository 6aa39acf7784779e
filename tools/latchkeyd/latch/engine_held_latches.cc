// The latches of an unconnected UDP socket's peers (RFC 5660, 5.2: a latch for each): made when a
// peer's datagrams begin to move, BROKEN while nothing of it moves for the reason shown, and
// ESTABLISHED again when all conflicts are gone, for the socket has other peers and stays open.

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"

namespace latchkey::broker {
namespace {

// Takes over from the pair of SAs that serves it now; true when they are others.
bool Follow(Latch& latch, const PeerLook& look) {
  const uint32_t in = look.in->sa.key.spi;
  const uint32_t out = look.out->sa.key.spi;
  const bool moved = latch.spi_in != in || latch.spi_out != out;
  latch.flow.local = look.way->flow.local;
  latch.peering = look.out->who.verified.peering;
  latch.offload = std::max(look.out->sa.offload, look.in->sa.offload);
  latch.reqid = look.out->sa.reqid;
  latch.spi_in = in;
  latch.spi_out = out;
  return moved;
}

}  // namespace

// What every latch of a peer has from its socket's.
Entry Engine::PeerEntry(const Entry& entry) const {
  Entry made;
  made.session = entry.session;
  made.policy = entry.policy;
  made.requester = entry.requester;
  made.hint = entry.hint;
  made.v6_socket = entry.v6_socket;
  made.created = kernel_.NowMs();
  made.latch = entry.latch;
  made.latch.id = 0;
  made.latch.listener = entry.latch.id;
  made.latch.suspends = true;
  return made;
}

Entry* Engine::MakePeerLatch(const Entry& entry, HeldPeer& peer, const PeerLook& look) {
  Entry made = PeerEntry(entry);
  made.rule = look.way->verdict.rule;
  Latch& latch = made.latch;
  latch.state = State::kEstablished;
  latch.flow = look.way->flow;
  if (peer.asked) latch.flow.direction = Direction::kOut;
  latch.identity = *peer.identity;
  latch.protection = peer.protection;
  latch.implicit = look.way->verdict.implicit;
  if (made.rule != nullptr) latch.rule = made.rule->name;
  latch.since = kernel_.WallSeconds();
  Follow(latch, look);
  Entry* stored = database_.Insert(std::move(made));
  if (stored != nullptr) peer.latch = stored->latch.id;
  return stored;
}

// Has a peer's latch say what was found. The observer, and so the page, hears of a break before the
// kernel does.
void Engine::NotePeer(const Entry& entry, HeldPeer& peer, const PeerLook& look) {
  if (!peer.identity) return;
  Entry* latch = database_.Find(peer.latch);
  if (latch == nullptr) {
    if (look.way == nullptr || !look.Moves()) return;
    latch = MakePeerLatch(entry, peer, look);
    if (latch == nullptr) return;
  } else if (look.way != nullptr && Follow(latch->latch, look)) {
    observer_.OnMove(*latch);
  }
  const int64_t now = kernel_.NowMs();
  Reason why = look.why.reason;
  const bool stalls = why == Reason::kNone && !look.Moves();
  if (stalls && latch->stalled_since == 0) {
    latch->stalled_since = now;
    if (latch->latch.state == State::kEstablished) observer_.OnStall(*latch, true);
  } else if (!stalls && std::exchange(latch->stalled_since, 0) != 0) {
    if (latch->latch.state == State::kEstablished) observer_.OnStall(*latch, false);
  }
  if (stalls) {
    const int64_t until = latch->stalled_since + options_.sa_grace_ms;
    if (now >= until) {
      why = Reason::kNoSa;
    } else if (peer.again_at == 0 || until < peer.again_at) {
      peer.again_at = until;
    }
  }
  if (latch->latch.state == State::kEstablished) {
    if (why != Reason::kNone) database_.SetState(*latch, State::kBroken, why);
  } else if (why == Reason::kNone && !stalls) {
    database_.SetState(*latch, State::kEstablished, Reason::kNone);
  } else if (why != Reason::kNone && why != latch->latch.reason) {
    Restate(*latch, why);
  }
}

// Nothing of it moves any more, or whoever comes next begins anew.
void Engine::EndPeerLatch(HeldPeer& peer, Reason reason) {
  if (peer.latch != 0) database_.Remove(std::exchange(peer.latch, 0), reason);
}

// Has the next broker know of a peer that the administrator broke, or gave back.
void Engine::NoteAdminBreak(const Entry& latch, bool broken) {
  Entry* entry = database_.Find(latch.latch.listener);
  if (entry == nullptr) return;
  const SocketAddress& remote = latch.latch.flow.remote;
  if (broken) {
    entry->broken_peers[remote] = latch.latch;
  } else {
    entry->broken_peers.erase(remote);
  }
  observer_.OnMove(*entry);
}

// One that the administrator broke under a broker before us is bound as it was, for its latch to
// stay broken.
void Engine::BindBrokenPeers(Entry& entry) {
  for (const auto& [remote, latch] : entry.broken_peers) {
    HeldPeer& peer = entry.held->peers[remote];
    peer.asked = latch.flow.direction == Direction::kOut;
    peer.asked_at = kernel_.NowMs();
    peer.identity = latch.identity;
    peer.protection = latch.protection;
    peer.latch = latch.id;
  }
}

// Where one cannot be, the peer would be served: then nothing of the socket moves.
void Engine::RestoreBrokenPeers(Entry& entry) {
  for (const auto& [remote, latch] : entry.broken_peers) {
    Entry made = PeerEntry(entry);
    const auto& rules = entry.policy->rules;
    const auto rule = std::ranges::find(rules, latch.rule, &policy::Rule::name);
    if (rule != rules.end()) made.rule = &*rule;
    made.latch.id = latch.id;
    made.latch.state = State::kBroken;
    made.latch.reason = Reason::kAdmin;
    made.latch.flow = latch.flow;
    made.latch.identity = latch.identity;
    made.latch.protection = latch.protection;
    made.latch.peering = latch.peering;
    made.latch.reqid = latch.reqid;
    made.latch.spi_in = latch.spi_in;
    made.latch.spi_out = latch.spi_out;
    made.latch.implicit = latch.implicit;
    made.latch.rule = latch.rule;
    made.latch.since = latch.since;
    made.broken_since = kernel_.NowMs();
    made.admin_broken = true;
    if (database_.Restore(std::move(made)) == nullptr) {
      entry.held->peers.at(remote).latch = 0;  // that id is another's
      Cease(entry, Error{"hold socket", "the latch of a peer that was broken is another's",
                         Reason::kSuspectGap});
    }
  }
}

// Looks at the peer whose latch this is. False when it is gone: the look itself may have ended it.
bool Engine::LookAtPeerOf(const Entry& latch) {
  const uint64_t id = latch.latch.id;
  Entry* entry = database_.Find(latch.latch.listener);
  if (entry == nullptr || !entry->held) return false;
  for (auto& [remote, peer] : entry->held->peers) {
    if (peer.latch != id) continue;
    RefreshPeer(*entry, remote, peer);
    return peer.latch == id;
  }
  return false;
}

}  // namespace latchkey::broker
