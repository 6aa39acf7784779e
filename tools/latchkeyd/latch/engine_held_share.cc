// One user's share of the filter's maps, which are the whole host's: whoever has used up his own
// keeps what he has, and gets no more until an eighth of it is free. Root has what there is.

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/held.h"

namespace latchkey::broker {

// True where a user may have so many regions, and peers that are asked about, more.
bool Engine::HasShare(uint32_t uid, size_t regions, size_t asked) const {
  for (const uint64_t id : database_.listeners()) {
    const Entry& each = *database_.Find(id);
    if (!each.held || each.latch.uid != uid) continue;
    regions += each.held->regions.size();
    asked += CountAsked(*each.held);
  }
  if (asked > options_.latches_per_uid) return false;
  return uid == 0 || std::max(regions, asked) <= options_.filter_share;
}

// True where whoever has SAs may become a peer of a user's socket unasked.
bool Engine::MayAdmit(uint32_t uid) {
  if (uid == 0 || shares_[uid].admitted < options_.admission_share) return true;
  Exhaust(uid);
  return false;
}

void Engine::Exhaust(uint32_t uid) {
  if (std::exchange(shares_[uid].exhausted, true)) return;
  observer_.OnWarning("user " + std::to_string(uid) +
                      ": its unconnected UDP sockets are admitted no more than " +
                      std::to_string(options_.admission_share) + " times");
}

// Cuts what is to be admitted of a peer to what its user has left. What is admitted already stays;
// whoever can be heard by none of it is not spoken to either.
void Engine::Ration(const Entry& entry, HeldPeer& peer, PeerLook& look) {
  const uint32_t uid = entry.latch.uid;
  if (uid == 0 || look.admissions.empty()) return;
  const size_t others = shares_[uid].admitted - peer.admissions.size();
  for (auto it = look.admissions.begin(); it != look.admissions.end();) {
    const bool fits = others + look.admissions.size() <= options_.admission_share;
    it = fits || peer.admissions.contains(*it) ? std::next(it) : look.admissions.erase(it);
    if (!fits) Exhaust(uid);
  }
  if (!look.admissions.empty()) return;
  look.guards.clear();
  look.why = Error{"serve peer", "too many of one user", Reason::kLimit};
  if (peer.latch == 0) peer.identity.reset();
}

// Looks again at the peers of those who have room again.
void Engine::RenewShares() {
  const size_t enough = std::max<size_t>(1, options_.admission_share / 8);
  for (auto& [uid, share] : shares_) {
    if (!share.exhausted || share.admitted + enough > options_.admission_share) continue;
    share.exhausted = false;
    for (const uint64_t id : database_.listeners()) {
      Entry& entry = *database_.Find(id);
      if (entry.held && entry.latch.uid == uid) RefreshHeld(entry);
    }
  }
  std::erase_if(shares_, [](const auto& each) {
    return each.second.admitted == 0 && !each.second.exhausted;
  });
}

}  // namespace latchkey::broker
