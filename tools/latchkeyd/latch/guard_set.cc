#include "tools/latchkeyd/latch/guard_set.h"

#include <algorithm>
#include <utility>

namespace latchkey::broker {

namespace {

TunnelEnds EndsOf(const SpdEntry& entry) {
  if (entry.dir == 1) return {entry.tunnel_source, entry.tunnel_destination};
  return {entry.tunnel_destination, entry.tunnel_source};
}

// True for a guard with which a ban comes.
bool OfTunnel(const Guard& guard) {
  return guard.out && Requires(guard.action) && guard.mode == Mode::kTunnel;
}

}  // namespace

bool Shows(const SpdEntry& entry, const Guard& guard) {
  if (entry.dir != (guard.out ? 1 : 0) || entry.selector != guard.selector) return false;
  if (entry.mark != guard.mark || entry.mark_mask != (guard.mark | guard.unset)) return false;
  if (entry.if_id != 0) return false;
  if (entry.priority != guard.priority) return false;
  switch (guard.action) {
    case Guard::Action::kBlock:
      return entry.block;
    case Guard::Action::kAllow:
      return !entry.block && entry.bare;
    case Guard::Action::kEsp:
    case Guard::Action::kAh:
      return !entry.block && !entry.bare && RequireAction(entry.protocol) == guard.action &&
             entry.reqid == guard.reqid && entry.mode == guard.mode && EndsOf(entry) == guard.ends;
  }
  return false;
}

bool GuardSet::Owns(const SpdEntry& entry) const {
  if (entry.dir > 1) return false;
  Guard guard;
  guard.out = entry.dir == 1;
  guard.priority = entry.priority;
  guard.mark = entry.mark;
  guard.unset = entry.mark_mask & ~entry.mark;
  guard.selector = entry.selector;
  guard.reqid = entry.reqid;
  if (entry.block) {
    guard.action = Guard::Action::kBlock;
  } else {
    guard.action = entry.bare ? Guard::Action::kAllow : RequireAction(entry.protocol);
    if (!entry.bare) {
      guard.mode = entry.mode;
      guard.ends = EndsOf(entry);
    }
  }
  return uses_.contains(guard) && Shows(entry, guard);
}

std::optional<Guard> GuardSet::InPlaceOf(const Guard& guard) const {
  const auto found = std::ranges::find_if(
      uses_, [&guard](const auto& each) { return SamePlace(each.first, guard); });
  return found != uses_.end() ? std::optional(found->first) : std::nullopt;
}

void GuardSet::Inherit(const Guard& guard) {
  uses_[guard].present = true;
  if (OfTunnel(guard)) bans_.reset();
}

Result<void> GuardSet::Add(const Guard& guard, Use& use) {
  observer_.OnGuard(guard, /*adding=*/true);
  Result<void> added = kernel_.AddGuard(guard);
  // One that is there already serves when it is another broker's, or was left by one before us.
  const bool may_exist = use.shared || use.present;
  if (!added && !(may_exist && added.error().reason == Reason::kConflictSpd)) return added;
  use.present = true;
  return {};
}

Result<void> GuardSet::Hold(const Guard& guard, bool shared) {
  auto [it, fresh] = uses_.try_emplace(guard);
  Use& use = it->second;
  use.shared = shared;
  // An inherited entry may have gone with a flush: adding it again tells.
  if (fresh || use.count == 0) {
    Result<void> added;
    if (OfTunnel(guard)) added = UpdateBans();
    if (added) added = Add(guard, use);
    if (!added) {
      observer_.OnGuard(guard, /*adding=*/false);
      uses_.erase(it);
      LiftBans(guard);
      return added;
    }
  }
  ++use.count;
  return {};
}

void GuardSet::Drop(const Guard& guard, bool keep) {
  auto it = uses_.find(guard);
  if (it == uses_.end() || --it->second.count > 0) return;
  if (!keep) {
    if (Result<void> gone = kernel_.DeleteGuard(guard); !gone) {
      observer_.OnWarning("an SPD entry stays behind: " + gone.error().ToString());
    }
  }
  uses_.erase(it);
  LiftBans(guard);
  observer_.OnGuard(guard, /*adding=*/false);
}

void GuardSet::LetGo(const SocketAddress& remote) {
  for (const auto& [guard, use] : uses_) {
    const Selector& selector = guard.selector;
    const bool on_the_way = guard.out && use.present && Requires(guard.action) &&
                            selector.destination.Contains(remote.address) &&
                            (remote.port & selector.destination_mask) == selector.destination_port;
    if (!on_the_way) continue;
    if (Result<void> again = kernel_.RenewGuard(guard, guard); !again) {
      observer_.OnWarning("what an SPD entry keeps back waits longer: " + again.error().ToString());
    }
  }
}

bool GuardSet::Renew(const Guard& from, const Guard& to) {
  auto it = uses_.find(from);
  if (it == uses_.end() || uses_.contains(to)) return false;
  uses_[to] = it->second;
  Result<void> renewed;
  if (OfTunnel(to)) renewed = UpdateBans();
  observer_.OnGuard(to, /*adding=*/true);
  if (renewed) renewed = kernel_.RenewGuard(from, to);
  if (!renewed) {
    uses_.erase(to);
    LiftBans(to);
    observer_.OnGuard(to, /*adding=*/false);
    observer_.OnWarning("an SPD entry cannot be changed: " + renewed.error().ToString());
    return false;
  }
  uses_.erase(from);
  LiftBans(from);
  observer_.OnGuard(from, /*adding=*/false);
  return true;
}

void GuardSet::MoveBack(const Selector& selector) {
  for (auto& [guard, use] : uses_) {
    if (!guard.out || guard.mark == 0 || guard.selector != selector || !use.present) continue;
    Result<void> moved = kernel_.DeleteGuard(guard);
    if (moved) moved = kernel_.AddGuard(guard);
    use.present = moved.has_value();
    if (!moved) {
      observer_.OnWarning("an SPD entry of ours was lost: " + moved.error().ToString());
    }
  }
}

void GuardSet::LiftBans(const Guard& gone) {
  if (!OfTunnel(gone)) return;
  if (Result<void> done = UpdateBans(); !done) observer_.OnWarning(done.error().ToString());
}

Result<void> GuardSet::UpdateBans() {
  std::vector<FragmentBan> wanted;
  for (const auto& [guard, use] : uses_) {
    if (!OfTunnel(guard)) continue;
    wanted.push_back({guard.selector.source, guard.selector.destination, guard.reqid});
  }
  std::ranges::sort(wanted);
  const auto [first, last] = std::ranges::unique(wanted);
  wanted.erase(first, last);
  if (wanted == bans_) return {};
  if (Result<void> done = kernel_.BanFragments(wanted); !done) return done;
  bans_ = std::move(wanted);
  return {};
}

void GuardSet::KeepBans() {
  if (!bans_ || bans_->empty() || kernel_.FragmentsBanned()) return;
  observer_.OnWarning("what bans the fragments of tunnels was lost");
  if (Result<void> done = kernel_.BanFragments(*bans_); !done) {
    observer_.OnWarning(done.error().ToString());
  }
}

void GuardSet::Sweep() {
  std::vector<Guard> unused;
  for (const auto& [guard, use] : uses_) {
    if (use.count == 0) unused.push_back(guard);
  }
  for (const Guard& guard : unused) Drop(guard);
}

std::set<Guard> GuardSet::Reassert(const std::vector<SpdEntry>& spd) {
  std::set<Guard> missing;
  for (auto& [guard, use] : uses_) {
    const Guard& wanted = guard;
    if (use.count == 0 ||
        std::ranges::any_of(spd, [&](const SpdEntry& entry) { return Shows(entry, wanted); })) {
      continue;
    }
    missing.insert(guard);
    use.present = false;
    // Something of equal selector and mark but another content may stand there: ours replaces it.
    if (Result<void> gone = kernel_.DeleteGuard(guard); !gone) {
      observer_.OnWarning("an SPD entry of ours was changed and cannot be taken back: " +
                          gone.error().ToString());
    }
    if (Result<void> added = Add(guard, use); !added) {
      observer_.OnWarning("an SPD entry of ours was lost and cannot be put back: " +
                          added.error().ToString());
    }
  }
  return missing;
}

}  // namespace latchkey::broker
