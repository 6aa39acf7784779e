// One latch, as its SAs come and go: kept, moved, broken, recovered (RFC 5660, sections 2.2, 2.3).

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// How long before its SAs go a peer may have been found dead for that to be the reason.
constexpr int64_t kDeadMs = 10'000;

}  // namespace

Engine::Standing Engine::Stand(const Entry& entry) const {
  const Latch& latch = entry.latch;
  Standing standing;
  std::vector<const KnownSa*> fitting[2];
  for (const bool inbound : {false, true}) {
    const uint32_t pinned = inbound ? latch.spi_in : latch.spi_out;
    for (const KnownSa* known : sas_.Carrying(latch.flow, inbound)) {
      if (known->who.pending()) {
        standing.pending = true;
      } else if (!known->who.known() && known->who.why == Reason::kKmLost) {
        // Under pin = "spi" a strange SA cannot carry anything of the latch.
        if (latch.pin != Pin::kSpi || known->sa.key.spi == pinned) standing.lost = true;
      } else if (Conflicts(*known, latch)) {
        standing.conflict = true;
      } else if (known->sa.reqid != 0 && known->sa.mark_mask == 0) {
        fitting[inbound ? 1 : 0].push_back(known);
      }
    }
  }
  // The same reqid as before if it can be, then the newest.
  const auto better = [&latch](const KnownSa* a, const KnownSa* b) {
    const bool same_a = a->sa.reqid == latch.reqid;
    const bool same_b = b->sa.reqid == latch.reqid;
    return same_a != same_b ? same_a : a->order > b->order;
  };
  for (auto& list : fitting) std::ranges::stable_sort(list, better);
  for (const KnownSa* out : fitting[0]) {
    const auto back = std::ranges::find_if(fitting[1], [out](const KnownSa* in) {
      return in->sa.reqid == out->sa.reqid && in->local() == out->local() &&
             in->remote() == out->remote();
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

void Engine::CheckLatch(Entry& entry) {
  Latch& latch = entry.latch;
  const bool suspended = latch.state == State::kBroken && latch.suspends && !entry.admin_broken;
  // One that goes in clear has no SA to lose, and none can contradict it.
  if (latch.clear || (latch.state != State::kEstablished && !suspended)) return;
  const Standing standing = Stand(entry);
  if (suspended) {
    const bool doubtful = standing.conflict || standing.pending || standing.lost;
    if (!doubtful && standing.whole() && SystemAllows(entry)) Recover(entry, standing);
    return;
  }
  if (standing.conflict) return Break(entry, Reason::kConflictSa);
  const int64_t now = kernel_.NowMs();
  if (standing.whole()) {
    Move(entry, standing);
    entry.doubt_since = 0;
    entry.peer_dead_at = 0;
  } else if (standing.lost) {
    if (entry.doubt_since == 0) {
      entry.doubt_since = now;
      Rekindle(entry);
    }
  } else if (entry.peer_dead_at != 0 && now - entry.peer_dead_at <= kDeadMs && !standing.pending) {
    return Break(entry, Reason::kPeerDead);
  }
  const bool stalled = !standing.whole() && !standing.lost && !standing.pending;
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

// Follows a rekey. Under pin = "reqid" the kernel does by itself.
void Engine::Move(Entry& entry, const Standing& standing) {
  Latch& latch = entry.latch;
  const bool same_ends = SameEnds(*standing.out, latch);
  latch.peering = standing.out->who.verified.peering;
  const uint32_t reqid = standing.out->sa.reqid;
  const uint32_t out = standing.out->sa.key.spi;
  uint32_t in = standing.in->sa.key.spi;
  if (latch.pin != Pin::kSpi && reqid == latch.reqid && same_ends) {
    latch.spi_out = out;
    latch.spi_in = in;
    return;
  }
  // The end that began the rekey has both new SAs at once, but its peer goes on sending under the
  // old one until it is told to delete that; our own old outgoing one goes when it has answered.
  const int64_t now = kernel_.NowMs();
  const bool moves_out = out != latch.spi_out;
  const int64_t moved = moves_out ? now : entry.moved_out_at;
  const auto current = std::ranges::find_if(sas_.all(), [&latch](const auto& each) {
    return each.second.inbound && each.second.sa.key.spi == latch.spi_in;
  });
  if (reqid == latch.reqid && standing.overlap && moved != 0 && now - moved < options_.overlap_ms &&
      current != sas_.all().end()) {
    in = latch.spi_in;
  }
  if (!moves_out && in == latch.spi_in && reqid == latch.reqid && same_ends) return;
  if (Repin(entry, standing, in) && moves_out) entry.moved_out_at = now;
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
  latch.spi_in = spi_in;
  latch.spi_out = standing.out->sa.key.spi;
  latch.reqid = policy.reqid;
  const Guard wanted = FlowGuard(latch, options_.guard_mark);
  if (std::ranges::find(entry.guards, wanted) != entry.guards.end()) return true;
  for (const Guard& guard : std::exchange(entry.guards, {})) guards_.Drop(guard);
  if (guards_.Hold(wanted)) entry.guards.push_back(wanted);
  return true;
}

// RFC 5660, 2.2: back to ESTABLISHED when all conflicts are gone.
void Engine::Recover(Entry& entry, const Standing& standing) {
  Latch& latch = entry.latch;
  latch.peering = standing.out->who.verified.peering;
  if (!Repin(entry, standing, standing.in->sa.key.spi)) return;
  entry.stalled_since = entry.doubt_since = entry.peer_dead_at = entry.broken_since = 0;
  database_.SetState(entry, State::kEstablished, Reason::kNone);
}

// What an administrator changes in the SPD while a flow lives counts for what the application asked
// for itself (RFC 5660, 2.3: broken); what the system asked is kept as it was.
bool Engine::SystemAllows(const Entry& entry) const {
  const Latch& latch = entry.latch;
  if (latch.implicit || latch.clear) return true;
  const policy::Verdict verdict =
      policy::Decide(system(), *entry.policy, entry.requester, latch.flow, /*same_host=*/false);
  return verdict.outcome == policy::Outcome::kProtect &&
         policy::Judge(verdict.demand, latch.identity, latch.protection) == Reason::kNone;
}

void Engine::Break(Entry& entry, Reason reason) {
  const bool larval = entry.latch.state == State::kLarval;
  if (!database_.SetState(entry, State::kBroken, reason)) return;  // the page knows from here on
  entry.broken_since = kernel_.NowMs();
  if (larval) EndLarval(entry, std::nullopt);
  // Nothing leaves for it any more, not even by the SPD.
  for (const Guard& guard : std::exchange(entry.guards, {})) guards_.Drop(guard);
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
