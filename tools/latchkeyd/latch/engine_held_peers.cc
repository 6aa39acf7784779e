// Whom an unconnected UDP socket has to do with. A peer's datagrams are bound to the identity, and
// the protection, that they began to move with: as long as an SA of it is there, or was within the
// last kPeerMs, those of nobody else move (RFC 5660, 2.1: a latch for each of them).

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/held.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

policy::Verdict Engine::DecideDatagram(const Entry& entry, const Flow& flow) const {
  Flow decided = flow;
  decided.direction = Direction::kBoth;
  bool stays = false;
  if (flow.SameHost() || kernel_.IsLocalAddress(flow.remote.address)) {
    if (const std::optional<int> fd = kernel_.Borrow(entry.hint)) {
      const Result<SocketFacts> facts = kernel_.Inspect(*fd);
      stays = facts && StaysBy(*fd, facts->mark | options_.guard_mark, flow) != 0;
      kernel_.GiveBack(*fd);
    }
  }
  return policy::Decide(system(), *entry.policy, entry.requester, decided, stays);
}

// Has a tag's proof stand. Where it did for SAs of another reqid that bear the tag no more, it is
// changed in its place, for all who hold it.
Result<void> Engine::HoldProof(HeldPeer& peer, const Guard& proof) {
  const auto stands = [&] { return std::ranges::find(peer.proofs, proof) != peer.proofs.end(); };
  if (stands()) return {};
  Result<void> held = guards_.Hold(proof);
  if (!held && held.error().reason == Reason::kConflictSpd) {
    const std::optional<Guard> other = guards_.InPlaceOf(proof);
    if (other && RenewForAll(*other, proof) && stands()) return {};
    // Else another broker's: should it say something else, the next look at the SPD replaces it.
    held = guards_.Hold(proof, /*shared=*/!other);
  }
  if (held) peer.proofs.push_back(proof);
  return held;
}

// Makes what was found the entries and admissions of a peer. What is no longer allowed goes first:
// the standing BLOCK stands beneath. A tag's proof stands before anything is admitted by it, and
// until nothing is. What the kernel refuses is tried again at the next look.
void Engine::Provide(Entry& entry, HeldPeer& peer, PeerLook& look) {
  std::erase_if(look.proofs, [&](const Guard& proof) {
    return std::ranges::none_of(look.admissions,
                                [&](const auto& each) { return each.tag == proof.mark; });
  });
  const auto cannot_come = [&](const Error& why) {
    observer_.OnWarning("a peer's datagrams cannot be taken in by latch " +
                        std::to_string(entry.latch.id) + ": " + why.ToString());
  };
  for (const Guard& proof : look.proofs) {
    const Result<void> held = HoldProof(peer, proof);
    if (held) continue;
    cannot_come(held.error());
    std::erase_if(look.admissions, [&](const auto& each) { return each.tag == proof.mark; });
  }
  std::erase_if(peer.admissions, [&](const DatagramAdmission& each) {
    if (look.admissions.contains(each)) return false;
    kernel_.Dismiss(each);
    --shares_[entry.latch.uid].admitted;
    observer_.OnAdmission(each, peer.latch, /*adding=*/false);
    return true;
  });
  std::erase_if(peer.guards, [&](const Guard& each) {
    if (std::ranges::find(look.guards, each) != look.guards.end()) return false;
    guards_.Drop(each);
    return true;
  });
  for (const DatagramAdmission& each : look.admissions) {
    if (peer.admissions.contains(each)) continue;
    observer_.OnAdmission(each, peer.latch, /*adding=*/true);
    if (Result<void> done = kernel_.Admit(each); !done) {
      observer_.OnAdmission(each, peer.latch, /*adding=*/false);
      cannot_come(done.error());
      continue;
    }
    peer.admissions.insert(each);
    ++shares_[entry.latch.uid].admitted;
  }
  for (const Guard& each : look.guards) {
    if (std::ranges::find(peer.guards, each) != peer.guards.end()) continue;
    if (Result<void> done = HoldOver(each); !done) {
      observer_.OnWarning("a peer cannot be sent to by latch " + std::to_string(entry.latch.id) +
                          ": " + done.error().ToString());
      continue;
    }
    peer.guards.push_back(each);
  }
  std::erase_if(peer.proofs, [&](const Guard& each) {
    if (look.proofs.contains(each)) return false;
    guards_.Drop(each);
    return true;
  });
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
  peer.again_at = 0;
  PeerLook look = LookAtPeer(entry, remote, peer);
  if (!stale_) Unbind(peer, look);
  JudgePeer(entry, remote, peer, look);
  const bool serves = look.why.reason == Reason::kNone;
  for (const PeerLook::Way& way : look.ways) {
    if (serves) ServePeer(entry, peer, way, look);
  }
  Ration(entry, peer, look);
  NotePeer(entry, peer, look);
  Provide(entry, peer, look);
  const Reason why = look.why.reason;
  if (std::exchange(peer.why, why) != why && why != Reason::kNone) {
    const Client client{entry.session, entry.policy, entry.requester, entry.hint.pid,
                        entry.latch.program};
    observer_.OnRefusal(client, Flow{Direction::kIn, kProtocolUdp, entry.latch.flow.local, remote},
                        why, look.why.ToString());
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
    const bool rules = NeedAt(*entry.held, {address, 0}) == DatagramRegion::Need::kTag;
    if (!fits || !rules) continue;
    std::set<uint16_t> ports = sas_.FlowPortsOf(address, kProtocolUdp, bound.port);
    ports.insert(0);
    for (const uint16_t port : ports) {
      const SocketAddress remote{address, port};
      if (entry.held->peers.contains(remote) || !MayAdmit(entry.latch.uid)) continue;
      entry.held->peers.try_emplace(remote);
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
    shares_[entry.latch.uid].admitted -= peer.admissions.size();
    for (const auto& each : peer.admissions) observer_.OnAdmission(each, peer.latch, false);
    EndPeerLatch(peer, Reason::kClosed);
    for (const Guard& guard : peer.guards) guards_.Drop(guard);
  }
  kernel_.ForgetDatagrams(entry.hint.cookie);
  for (const auto& [remote, peer] : std::exchange(entry.held->peers, {})) {
    for (const Guard& proof : peer.proofs) guards_.Drop(proof);
  }
}

}  // namespace latchkey::broker
