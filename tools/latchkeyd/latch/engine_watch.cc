// What happens without being asked: SAs and SPD entries that come and go, closed sockets, restarts.

#include <algorithm>
#include <functional>
#include <limits>
#include <set>
#include <unordered_map>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/listener_plan.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// Broken latches whose socket the program still holds are looked at more rarely: finding a
// descriptor under /proc costs more than asking the kernel for its connections.
constexpr int64_t kMourningMs = 10'000;
// At the most so often for those who have as many as they may: it takes some milliseconds.
constexpr int64_t kHastyMourningMs = 1'000;
// How long a broken latch is shown at least.
constexpr int64_t kShownMs = 30'000;

const std::set<Prefix> kEverybody = {Prefix{Address::AnyOf(Family::kV4), 0},
                                     Prefix{Address::AnyOf(Family::kV6), 0}};

// True for a latch that must outlive its socket's place in the kernel's tables as long as a program
// holds the socket: one that broke, or lost its SA (its program goes on reading ECONNRESET after
// TCP gave up), and one that was never seen there (it may be about to connect).
bool Lingers(const Entry& entry) {
  return entry.latch.state == State::kBroken || entry.stalled_since != 0 || !entry.seen;
}

}  // namespace

Guard Engine::StandingBlock(Family family) const {
  Guard guard;
  guard.action = Guard::Action::kBlock;
  guard.priority = kStandingPriority;
  guard.mark = options_.guard_mark;
  guard.selector.family = family;
  guard.selector.source = Prefix{Address::AnyOf(family), 0};
  guard.selector.destination = Prefix{Address::AnyOf(family), 0};
  return guard;
}

Result<void> Engine::ReadSpd() {
  Result<std::vector<SpdEntry>> spd = kernel_.DumpSpd();
  if (!spd) return std::unexpected(spd.error());
  spd_ = std::move(*spd);
  // Flushed or taken away by somebody: what our latches lean on goes back at once.
  const std::set<Guard> missing = guards_.Reassert(spd_);
  for (const uint64_t id : missing.empty() ? std::set<uint64_t>{} : database_.listeners()) {
    Entry& entry = *database_.Find(id);
    const auto opened = [&missing](const Guard& guard) {
      return !guard.out && guard.action != Guard::Action::kAllow && missing.contains(guard);
    };
    if (std::ranges::any_of(entry.sa_guards, std::logical_not{}, &Guard::out)) {
      NoteClearChildren(entry);
    }
    // What stands in the queue now may have come while nothing asked for an SA.
    if (std::ranges::any_of(entry.guards, opened) &&
        !NoteQueued(entry, kEverybody, entry.suspects)) {
      entry.blind = true;
    }
  }
  std::vector<SpdEntry> system;
  for (const SpdEntry& entry : spd_) {
    const bool marked = entry.mark_mask != 0 || entry.if_id != 0;
    if (entry.dir <= 1 && !marked && !guards_.Owns(entry)) system.push_back(entry);
  }
  if (system != system_spd_) {
    system_spd_ = std::move(system);
    observer_.OnSystem();
    CheckSystem();
  }
  return {};
}

void Engine::OnEvents(const std::vector<KernelEvent>& events) {
  bool spd = false;
  bool all = stale_;
  std::vector<Sa> touched;
  std::vector<Sa> unchecked;  // of them: added since the last look
  const auto touch = [&](const SaKey& key) {
    const auto it = sas_.all().find(key);
    if (it != sas_.all().end()) touched.push_back(it->second.sa);
  };
  for (const KernelEvent& event : events) {
    switch (event.kind) {
      case KernelEvent::Kind::kSaAdded:
        touch(event.sa.key);  // as it was, if it was
        LearnSa(event.sa);
        touched.push_back(event.sa);
        unchecked.push_back(event.sa);
        break;
      case KernelEvent::Kind::kSaDeleted:
        // What came and goes within one reading was there all the same.
        CheckTouched(std::exchange(unchecked, {}));
        touch(event.sa.key);
        EraseSa(event.sa.key, event.unused);
        break;
      case KernelEvent::Kind::kSaFlushed:
      case KernelEvent::Kind::kOverrun:
        all = true;
        break;
      case KernelEvent::Kind::kSpdChanged:
        spd = true;
        break;
    }
  }
  if (all) {
    Result<void> done = Resynchronise();
    stale_ = !done;
    if (!done) {
      // Without the facts nothing can be vouched for.
      observer_.OnWarning("cannot read the SAD and SPD: " + done.error().ToString());
      for (auto& [id, entry] : database_.entries()) {
        const bool own = entry.latch.state == State::kEstablished && entry.latch.listener == 0;
        if (own) Break(entry, Reason::kSuspectGap);
        if (entry.held) RefreshHeld(entry);
      }
      return;
    }
  } else if (spd) {
    if (Result<void> done = ReadSpd(); !done) {
      observer_.OnWarning(done.error().ToString());
      stale_ = true;
    }
  }
  std::set<Address> peers;
  if (all || !CheckTouched(touched, &peers)) return CheckAll();
  if (touched.empty()) return;
  AddTagSharers(touched, peers);
  RetryWaiting();
  CheckListeners(&peers);
}

void Engine::CheckAll() {
  // Latches first: a conflicting SA must not carry their packets a moment longer than it takes.
  for (auto& [id, entry] : database_.entries()) CheckLatch(entry);
  RetryWaiting();
  CheckListeners();
}

// Checks the latches that these SAs can matter to, and names their peers. False where some are of
// tunnels, and can matter to others than those.
bool Engine::CheckTouched(const std::vector<Sa>& sas, std::set<Address>* peers) {
  std::set<Address> ends;
  bool tunnels = false;
  for (const Sa& sa : sas) {
    ends.insert(sa.source);
    ends.insert(sa.key.destination);
    if (sa.protection.mode == Mode::kTransport) continue;
    tunnels = true;
    for (auto& [id, entry] : database_.entries()) {
      const Flow& flow = entry.latch.flow;
      if (sa.Carries(flow.protocol, flow.local, flow.remote) ||
          sa.Carries(flow.protocol, flow.remote, flow.local)) {
        CheckLatch(entry);
      }
    }
  }
  for (const Address& end : ends) {
    for (const uint64_t id : database_.WithRemote(end)) CheckLatch(*database_.Find(id));
  }
  if (peers != nullptr) *peers = std::move(ends);
  return !tunnels;
}

// With `peers`: only what is made of SAs with those, or of tunnels, can have changed.
void Engine::CheckListeners(const std::set<Address>* peers) {
  int64_t oldest_listener = kernel_.NowMs() - kImplicitQueueMs;
  for (const uint64_t id : database_.listeners()) {
    Entry& entry = *database_.Find(id);
    oldest_listener = std::min(oldest_listener, entry.created);
    if (entry.held) {
      RefreshHeld(entry, peers);
    } else {
      RefreshListener(entry, peers);
    }
  }
  sas_.ForgetBefore(oldest_listener);
}

void Engine::CheckSystem() {
  for (auto& [id, entry] : database_.entries()) {
    if (entry.latch.listener != 0) continue;
    if (entry.latch.state == State::kEstablished && !SystemAllows(entry)) {
      Break(entry, Reason::kConflictSpd);
    } else if (entry.latch.state == State::kBroken) {
      CheckLatch(entry);
    } else if (entry.held) {
      Replan(entry);
    }
  }
}

void Engine::Close(uint64_t id, Reason reason) {
  Entry* entry = database_.Find(id);
  if (entry == nullptr) return;
  if (entry->latch.state == State::kLarval) EndLarval(*entry, std::nullopt);
  for (const Guard& guard : entry->sa_guards) guards_.Drop(guard);
  LetGoOfPeers(*entry);
  const bool listener = entry->latch.state == State::kListener;
  for (const Guard& guard : entry->guards) {
    // Of UDP nothing is left to answer.
    if (listener || entry->latch.flow.protocol == kProtocolUdp) {
      guards_.Drop(guard);
    } else {
      lingering_.emplace(kernel_.NowMs() + options_.linger_ms, guard);
    }
  }
  if (listener) EndHolds();
  ReleaseKeys(*entry);
  database_.Remove(id, reason);
}

// SAs that were made for the flow alone have nobody left.
void Engine::ReleaseKeys(const Entry& entry) {
  const Latch& latch = entry.latch;
  const bool ours = latch.state != State::kListener && latch.flow.direction == Direction::kOut;
  if (ours && (entry.asked || entry.own_sa)) keys_.Release(entry.asked.value_or(latch.flow));
}

void Engine::DropLingering(int64_t until) {
  while (!lingering_.empty() && lingering_.begin()->first <= until) {
    const Guard guard = lingering_.begin()->second;
    lingering_.erase(lingering_.begin());
    guards_.Drop(guard);
    unserved_.insert(guard.selector.destination.base);
  }
}

void Engine::Tick(bool reap_now) {
  const int64_t now = kernel_.NowMs();
  if (stale_) OnEvents({});
  static_cast<void>(LookForNoXfrm());
  DropLingering(now);
  for (auto& [id, entry] : database_.entries()) {
    if (entry.latch.listener != 0) continue;
    const bool established = entry.latch.state == State::kEstablished;
    if (established && entry.stalled_since != 0 &&
        now - entry.stalled_since >= options_.sa_grace_ms) {
      Break(entry, Reason::kNoSa);
    } else if (established && entry.doubt_since != 0 &&
               now - entry.doubt_since >= options_.km_grace_ms) {
      Break(entry, Reason::kKmLost);
    } else if (established &&
               (entry.stalled_since != 0 || entry.rekindled_at != 0 || entry.unnamed ||
                (entry.moved_out_at != 0 && now - entry.moved_out_at >= options_.overlap_ms))) {
      CheckLatch(entry);  // pins that could not follow at first may now
    } else if (entry.latch.state == State::kBroken && !entry.silenced) {
      Silence(entry, /*first=*/false);
    }
  }
  for (const auto& [guard, since] : held_answers_) {
    if (now - since >= options_.identify_ms) unserved_.insert(guard.selector.destination.base);
  }
  CheckHeldInTime();
  RenewShares();
  const std::set<Address> peers = std::exchange(unserved_, {});
  if (!peers.empty()) CheckListeners(&peers);
  const bool accepting =
      std::ranges::any_of(waiting_, [](const auto& each) { return each.second.request.accept; });
  if (reap_now || accepting || now - last_reap_ >= options_.reap_ms) {
    guards_.KeepBans();
    Reap(reap_now);
  }
  if (std::exchange(retry_, false)) RetryWaiting();
}

void Engine::Reap(bool thorough) {
  const int64_t now = kernel_.NowMs();
  last_reap_ = now;
  if (database_.entries().empty() && opened_.empty()) return;
  Result<std::vector<LiveSocket>> live = kernel_.LiveSockets();
  if (!live) {
    observer_.OnWarning("cannot list connections: " + live.error().ToString());
    return;
  }
  std::unordered_map<uint64_t, const LiveSocket*> by_cookie;
  for (const LiveSocket& socket : *live) by_cookie.emplace(socket.cookie, &socket);
  std::vector<Entry*> missing;
  const bool mourn = thorough || now - last_mourning_ >= kMourningMs;
  for (auto& [id, entry] : database_.entries()) {
    if (entry.latch.listener != 0) continue;  // it goes with its listener
    const auto it = by_cookie.find(entry.hint.cookie);
    if (it == by_cookie.end()) {
      // A broken one stays to be seen for a while, even when its program has closed the socket.
      const bool broken = entry.latch.state == State::kBroken;
      const bool due = broken ? now - entry.broken_since >= kShownMs && mourn : mourn;
      if (!Lingers(entry) || due) missing.push_back(&entry);
      continue;
    }
    entry.seen = true;
    if (entry.latch.state == State::kListener) continue;
    // One that could have come back, and could not be given its pins, is tried again.
    if (entry.latch.state == State::kBroken) CheckLatch(entry);
    if (it->second->local.port != 0) entry.latch.flow.local = it->second->local;
  }
  if (mourn) last_mourning_ = now;
  if (missing.empty() && (!mourn || opened_.empty())) return;
  Result<std::unordered_set<uint64_t>> held = kernel_.HeldSocketInodes();
  if (!held) {
    observer_.OnWarning("cannot look for open sockets: " + held.error().ToString());
    return;
  }
  std::vector<uint64_t> gone;
  for (const Entry* entry : missing) {
    if (Lingers(*entry) && held->contains(entry->hint.inode)) continue;
    gone.push_back(entry->latch.id);
  }
  const size_t listeners = database_.listeners().size();
  for (const uint64_t id : gone) {
    const Entry& entry = *database_.Find(id);
    if (entry.was_held) kernel_.ForgetDatagrams(entry.hint.cookie);
    Close(id, Reason::kClosed);
  }
  std::erase_if(opened_, [&](const auto& each) {
    const bool closed = !held->contains(each.second);
    if (closed) kernel_.ForgetDatagrams(each.first);
    return closed;
  });
  // Whoever waits for a child's name has nobody left to accept it.
  if (database_.listeners().size() != listeners) retry_ = true;
}

// True when a user has as many latches as he may. Those of sockets that he has closed since they
// were last looked for do not count.
bool Engine::HasTooMany(uint32_t uid) {
  if (database_.CountOfUid(uid) < options_.latches_per_uid) return false;
  if (kernel_.NowMs() - last_mourning_ < kHastyMourningMs) return true;
  Reap(/*thorough=*/true);
  return database_.CountOfUid(uid) >= options_.latches_per_uid;
}

wire::Owner Engine::OwnerOf(const SpdEntry& entry, uint64_t& latch) const {
  if (!guards_.Owns(entry)) return wire::Owner::kSystem;
  for (const auto& [id, held] : database_.entries()) {
    bool its = false;
    EachGuard(held, [&](const Guard& guard) { its = its || Shows(entry, guard); });
    if (!its) continue;
    latch = id;
    for (const auto& [remote, peer] : held.held ? held.held->peers : decltype(Held::peers){}) {
      const auto shows = [&](const Guard& guard) { return Shows(entry, guard); };
      const bool peers =
          std::ranges::any_of(peer.guards, shows) || std::ranges::any_of(peer.proofs, shows);
      if (peer.latch != 0 && peers) latch = peer.latch;
    }
    return wire::Owner::kLatch;
  }
  return wire::Owner::kGuard;
}

void Engine::Stop(bool others) {
  while (!waiting_.empty()) Cancel(waiting_.begin()->first);
  // Nobody is left to give them their pins, and without our guards their SYNs would leave in clear.
  for (const uint64_t id : std::set(larvals_)) Break(*database_.Find(id), Reason::kSuspectGap);
  DropLingering(std::numeric_limits<int64_t>::max());
  bool outlived = others;
  for (auto& [id, entry] : database_.entries()) {
    if (entry.held) Shut(entry);
    // Its policy is of one family: what it could send by the other the standing BLOCK alone keeps.
    outlived = outlived || (entry.held && entry.v6_socket);
    for (const Guard& guard : entry.sa_guards) guards_.Drop(guard);
    for (const Guard& guard : entry.guards) guards_.Drop(guard);
    entry.sa_guards.clear();
    entry.guards.clear();
  }
  EndHolds();
  for (const Family family : {Family::kV4, Family::kV6}) {
    guards_.Drop(StandingBlock(family), outlived);
  }
}

}  // namespace latchkey::broker
