// One latch, as its SAs come and go: kept, moved, broken, recovered (RFC 5660, sections 2.2, 2.3).

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// How long before its SAs go a peer may have been found dead for that to be the reason.
constexpr int64_t kDeadMs = 10'000;
// A key manager that has just started may not have read its configurations yet: so often it is
// asked again for new SAs.
constexpr int64_t kRekindleMs = 3'000;

}  // namespace

Engine::Standing Engine::Stand(const Entry& entry) const {
  const Latch& latch = entry.latch;
  Standing standing;
  std::vector<const KnownSa*> fitting[2];
  for (const bool inbound : {false, true}) {
    const uint32_t pinned = inbound ? latch.spi_in : latch.spi_out;
    // What shares the pinned reqid is let in, and chosen, by the same policy.
    const uint32_t reqid = latch.pin == Pin::kReqid ? latch.reqid : 0;
    for (const KnownSa* known : sas_.Carrying(latch.flow, inbound, reqid)) {
      const bool admitted =
          latch.pin == Pin::kSpi ? known->sa.key.spi == pinned : known->sa.reqid == latch.reqid;
      // Wider ones do not serve it; of another peer they contradict it all the same.
      const bool wider = entry.own_sa && !known->sa.selector.OfOneFlow();
      if (wider && (!known->vouched || *known->vouched == latch.identity)) continue;
      if (OtherProtection(*known, latch) || (known->vouched && *known->vouched != latch.identity)) {
        standing.conflict = true;
      } else if (known->orphan() && !known->vouched) {
        standing.orphaned = true;
      } else if (known->doubtful()) {
        // Under pin = "spi" a strange SA cannot carry anything of the latch.
        if (latch.pin != Pin::kSpi || admitted) {
          standing.lost = true;
          if (!known->who.pending()) standing.forgotten = true;
        }
        if (admitted && !known->vouched) standing.strange = true;
      } else if (known->who.pending() && known->who.OthersThan(latch.identity) &&
                 known->sa.protection.mode == Mode::kTransport) {
        // What is still asked would not change it. (Of a tunnel: what it is for is asked too.)
        standing.conflict = true;
      } else if (known->who.pending()) {
        standing.pending = true;
        const bool late = kernel_.NowMs() - known->pending_since >= options_.name_ms;
        if (admitted) (late ? standing.conflict : standing.unnamed) = true;
      } else if (Conflicts(*known, latch)) {
        standing.conflict = true;
      } else if (known->sa.reqid != 0 && known->sa.mark_mask == 0) {
        fitting[inbound ? 1 : 0].push_back(known);
        if (admitted) (inbound ? standing.pinned_in : standing.pinned_out) = true;
      }
    }
  }
  // The same reqid as before if it can be, then the newest.
  const auto better = [&latch](const KnownSa* a, const KnownSa* b) {
    const bool own_a = a->sa.selector.OfOneFlow();
    const bool own_b = b->sa.selector.OfOneFlow();
    if (own_a != own_b) return own_a;
    const bool same_a = a->sa.reqid == latch.reqid;
    const bool same_b = b->sa.reqid == latch.reqid;
    return same_a != same_b ? same_a : a->order > b->order;
  };
  for (auto& list : fitting) std::ranges::stable_sort(list, better);
  for (const KnownSa* out : fitting[0]) {
    const auto back = std::ranges::find_if(fitting[1], [out](const KnownSa* in) {
      return in->sa.reqid == out->sa.reqid && in->local() == out->local() &&
             in->remote() == out->remote() &&
             in->sa.selector.OfOneFlow() == out->sa.selector.OfOneFlow();
    });
    if (back == fitting[1].end()) continue;
    standing.out = out;
    standing.in = *back;
    break;
  }
  standing.overlap =
      standing.out != nullptr && std::ranges::any_of(fitting[0], [&](const KnownSa* other) {
        return other->sa.reqid == standing.out->sa.reqid && other->order < standing.out->order;
      });
  return standing;
}

// Why a suspended latch cannot go on; kNone: it can.
Reason Engine::Obstacle(const Entry& entry, const Standing& standing) const {
  if (entry.admin_broken) return Reason::kAdmin;
  if (stale_) return Reason::kSuspectGap;
  if (standing.conflict) return Reason::kConflictSa;
  if (standing.orphaned || standing.lost) return Reason::kKmLost;
  if (standing.pending || !standing.whole()) return Reason::kNoSa;
  return SystemAllows(entry) ? Reason::kNone : Reason::kConflictSpd;
}

void Engine::CheckLatch(Entry& entry) {
  Latch& latch = entry.latch;
  const bool suspended = latch.state == State::kBroken && latch.suspends;
  // One that goes in clear has no SA to lose, and none can contradict it. A peer of an unconnected
  // UDP socket is looked at with that (RefreshPeer).
  if (latch.clear || latch.listener != 0 || (latch.state != State::kEstablished && !suspended))
    return;
  const Standing standing = Stand(entry);
  if (suspended) {
    if (Obstacle(entry, standing) == Reason::kNone) Recover(entry, standing);
    return;
  }
  if (standing.conflict) return Break(entry, Reason::kConflictSa);
  // There is no telling what came under it before us, nor what will.
  if (standing.orphaned) return Break(entry, Reason::kKmLost);
  entry.unnamed = standing.unnamed;
  const int64_t now = kernel_.NowMs();
  const uint32_t before = latch.spi_out;
  const bool served = standing.whole() && Move(entry, standing);
  if (latch.spi_out != before) entry.peer_dead_at = 0;  // somebody was there to make a new one
  if (standing.whole() && !standing.strange) {
    entry.doubt_since = 0;
    entry.rekindled_at = 0;
  } else if (!standing.lost && entry.rekindled_at == 0) {
    entry.doubt_since = 0;  // what was only asked about is gone
  } else if (entry.doubt_since == 0) {
    entry.doubt_since = now;
  }
  // Once begun it goes on while there is none, be the old ones forgotten or gone. (Forgotten ones
  // beside a pair that is vouched for stay for as long as the kernel keeps them.)
  const bool wanted = !standing.whole() && (standing.forgotten || entry.rekindled_at != 0);
  if (wanted && (entry.rekindled_at == 0 || now - entry.rekindled_at >= kRekindleMs)) {
    entry.rekindled_at = now;
    Rekindle(entry);
  }
  if (!standing.whole() && !standing.lost && !standing.pending && entry.peer_dead_at != 0 &&
      now - entry.peer_dead_at <= kDeadMs) {
    return Break(entry, Reason::kPeerDead);
  }
  const bool stalled = !served && !standing.lost;
  if (stalled && entry.stalled_since == 0) {
    entry.stalled_since = now;
    observer_.OnStall(entry, true);
  } else if (!stalled && entry.stalled_since != 0) {
    entry.stalled_since = 0;
    observer_.OnStall(entry, false);
  }
}

// A key manager that has forgotten its SAs has the chance to vouch for new ones before the grace
// time is over. Where it cannot, the latch breaks in the end; what became of the attempt needs no
// answer.
void Engine::Rekindle(const Entry& entry) {
  const policy::Verdict verdict = policy::Decide(system(), *entry.policy, entry.requester,
                                                 entry.latch.flow, /*same_host=*/false);
  if (verdict.outcome != policy::Outcome::kProtect) return;
  AcquireRequest request;
  request.flow = entry.latch.flow;
  if (verdict.rule != nullptr) request.child = verdict.rule->child;
  request.demand = verdict.demand;
  static_cast<void>(keys_.Acquire(request));
}

// Follows a rekey; under pin = "reqid" the kernel does by itself. True when the pins are of SAs
// that are there.
bool Engine::Move(Entry& entry, const Standing& standing) {
  Latch& latch = entry.latch;
  const bool same_ends = SameEnds(*standing.out, latch);
  // A reqid that does not fix the peer any more pins nothing: SPIs do, from now on.
  const latchkey::Pin asked =
      entry.rule != nullptr ? entry.rule->protection.pin : latchkey::Pin::kAuto;
  const bool tightens =
      latch.pin == Pin::kReqid && asked == Pin::kAuto && !standing.out->who.verified.static_reqid;
  if (tightens) latch.pin = Pin::kSpi;
  const bool by_spi = latch.pin == Pin::kSpi;
  const uint32_t out = standing.out->sa.key.spi;
  uint32_t in = standing.in->sa.key.spi;
  // In tunnel mode the kernel is told the ends too.
  const bool same = standing.out->sa.reqid == latch.reqid && same_ends;
  if (same_ends) latch.peering = standing.out->who.verified.peering;
  if (!by_spi && same) {
    latch.spi_out = out;
    latch.spi_in = in;
    return true;
  }
  // The end that began the rekey has both new SAs at once, but its peer goes on sending under the
  // old one until it is told to delete that; our own old outgoing one goes when it has answered.
  const int64_t now = kernel_.NowMs();
  const bool moves_out = !same || out != latch.spi_out;
  const int64_t moved = moves_out ? now : entry.moved_out_at;
  const bool waits = by_spi && same && standing.overlap && standing.pinned_in && moved != 0 &&
                     now - moved < options_.overlap_ms;
  if (waits) in = latch.spi_in;
  const bool moves = tightens || moves_out || in != latch.spi_in;
  if (moves && !Repin(entry, standing, in)) {
    if (tightens) latch.pin = Pin::kReqid;  // tried again at the next look
    return by_spi && standing.pinned_in && standing.pinned_out;
  }
  entry.moved_out_at = waits ? moved : 0;
  return true;
}

bool Engine::Repin(Entry& entry, const Standing& standing, uint32_t spi_in) {
  Latch& latch = entry.latch;
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  policy.family = latch.flow.remote.address.family;
  policy.protocol = latch.protection.protocol;
  policy.mode = latch.protection.mode;
  policy.ends = EndsOf(latch.protection, standing.out->who.verified.peering);
  policy.reqid = standing.out->sa.reqid;
  if (latch.pin == Pin::kSpi) {
    policy.spi_in = spi_in;
    policy.spi_out = standing.out->sa.key.spi;
  }
  const std::optional<int> fd = kernel_.Borrow(entry.hint);
  if (!fd) return false;  // closed, or out of reach: it stalls, and breaks
  Result<SocketFacts> facts = kernel_.Inspect(*fd);
  Result<void> done;
  if (!facts) done = std::unexpected(facts.error());
  if (done) done = kernel_.SetPolicy(*fd, *facts, policy);
  kernel_.GiveBack(*fd);
  if (!done) {
    observer_.OnWarning("a latch cannot follow its SAs: " + done.error().ToString());
    return false;
  }
  latch.peering = standing.out->who.verified.peering;
  latch.spi_in = spi_in;
  latch.spi_out = standing.out->sa.key.spi;
  latch.reqid = policy.reqid;
  observer_.OnMove(entry);
  // Other flows to the same server lean on the same entry.
  const Guard guard = FlowGuard(latch, options_.guard_mark, entry.own_sa);
  const std::vector<Guard> held = entry.guards;
  for (const Guard& old : held) {
    if (old == guard || RenewForAll(old, guard)) continue;
    std::erase(entry.guards, old);
    guards_.Drop(old);
  }
  if (entry.guards.empty() && HoldOver(guard)) entry.guards.push_back(guard);
  return true;
}

// RFC 5660, 2.2: back to ESTABLISHED when all conflicts are gone.
void Engine::Recover(Entry& entry, const Standing& standing) {
  Latch& latch = entry.latch;
  if (!Repin(entry, standing, standing.in->sa.key.spi)) return;
  entry.stalled_since = entry.doubt_since = entry.peer_dead_at = entry.broken_since = 0;
  entry.moved_out_at = 0;
  if (entry.guards.empty()) {
    const Guard guard = FlowGuard(latch, options_.guard_mark, entry.own_sa);
    if (HoldOver(guard)) entry.guards.push_back(guard);
  }
  database_.SetState(entry, State::kEstablished, Reason::kNone);
}

// What an administrator changes in the SPD while a flow lives counts for what the application asked
// for itself (RFC 5660, 2.3: broken); what the system asked is kept as it was.
bool Engine::SystemAllows(const Entry& entry) const {
  const Latch& latch = entry.latch;
  if (latch.implicit || latch.clear) return true;
  if (entry.rule == nullptr) {  // a broker before us lost what the application asked
    const policy::SystemAsk ask = policy::AskSystem(*options_.system, system_spd_, latch.flow);
    return ask.action != SystemAction::kDiscard;
  }
  const policy::Verdict verdict =
      policy::Decide(system(), *entry.policy, entry.requester, latch.flow, /*same_host=*/false);
  return verdict.outcome == policy::Outcome::kProtect &&
         policy::Judge(verdict.demand, latch.identity, latch.protection) == Reason::kNone;
}

void Engine::Break(Entry& entry, Reason reason) {
  const bool larval = entry.latch.state == State::kLarval;
  entry.refused = larval;
  if (!database_.SetState(entry, State::kBroken, reason)) return;  // the page knows from here on
  entry.broken_since = kernel_.NowMs();
  if (larval) EndLarval(entry, std::nullopt);
  // Nothing leaves for it any more, not even by the SPD.
  for (const Guard& guard : std::exchange(entry.guards, {})) {
    guards_.Drop(guard);
    unserved_.insert(guard.selector.destination.base);
  }
  Silence(entry, /*first=*/true);
}

void Engine::Silence(Entry& entry, bool first) {
  Flow flow = entry.latch.flow;
  bool blocked = false;
  const std::optional<int> fd = kernel_.Borrow(entry.hint);
  if (fd) {
    if (Result<SocketFacts> facts = kernel_.Inspect(*fd); facts) {
      SocketPolicy block;
      block.kind = SocketPolicy::Kind::kBlock;
      block.family = flow.remote.address.family;
      if (Result<void> done = kernel_.SetPolicy(*fd, *facts, block); done) {
        blocked = true;
      } else {
        observer_.OnWarning("cannot block a broken latch's socket: " + done.error().ToString());
      }
      if (facts->local.port != 0) flow.local = facts->local;
    }
  }
  entry.latch.flow.local = flow.local;
  if (entry.latch.suspends && blocked) {
    kernel_.GiveBack(*fd);
    entry.silenced = true;
    return;
  }
  // A latch that was to be suspended, and cannot be blocked, ends.
  entry.latch.suspends = false;
  const Result<void> aborted = kernel_.Abort(entry.hint, fd.value_or(-1), flow);
  if (fd) kernel_.GiveBack(*fd);
  // A socket that is in no table any more has nothing left to send.
  const bool gone = !aborted && aborted.error().reason == Reason::kClosed;
  entry.silenced = blocked || gone || aborted.has_value();
  if (!aborted && !gone && first) {
    observer_.OnWarning("a broken latch's socket cannot be aborted: " + aborted.error().ToString());
  }
}

}  // namespace latchkey::broker
