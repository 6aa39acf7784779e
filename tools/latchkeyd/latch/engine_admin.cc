// What the administrator may do to a latch (RFC 5660, sections 2.2 and 6.2).

#include "tools/latchkeyd/latch/engine.h"

namespace latchkey::broker {

Reason Engine::AdminBreak(uint64_t id) {
  Entry* entry = database_.Find(id);
  if (entry == nullptr) return Reason::kBadRequest;
  const State state = entry->latch.state;
  if (entry->latch.listener != 0) {
    if (state != State::kEstablished && state != State::kBroken) return Reason::kBadRequest;
    entry->admin_broken = true;
    NoteAdminBreak(*entry, /*broken=*/true);
    return LookAtPeerOf(*entry) ? Reason::kNone : Reason::kBadRequest;
  }
  if (state == State::kBroken && entry->latch.suspends) {
    entry->admin_broken = true;
    Restate(*entry, Reason::kAdmin);
    return Reason::kNone;
  }
  if (state != State::kEstablished && state != State::kLarval) return Reason::kBadRequest;
  entry->admin_broken = true;
  Break(*entry, Reason::kAdmin);
  return Reason::kNone;
}

Reason Engine::AdminResume(uint64_t id) {
  Entry* entry = database_.Find(id);
  if (entry == nullptr || entry->latch.state != State::kBroken || !entry->latch.suspends ||
      !entry->admin_broken) {
    return Reason::kBadRequest;
  }
  entry->admin_broken = false;
  if (entry->latch.listener != 0) {
    NoteAdminBreak(*entry, /*broken=*/false);
    if (!LookAtPeerOf(*entry)) return Reason::kBadRequest;
    const bool lacks =
        entry->latch.state == State::kBroken && entry->latch.reason == Reason::kAdmin;
    if (lacks) Restate(*entry, Reason::kNoSa);
    return Reason::kNone;
  }
  CheckLatch(*entry);
  if (entry->latch.state == State::kBroken) Restate(*entry, Obstacle(*entry, Stand(*entry)));
  return Reason::kNone;
}

// A latch stays broken, for another reason: the journal must know.
void Engine::Restate(Entry& entry, Reason reason) {
  entry.latch.reason = reason;
  observer_.OnState(entry, State::kBroken);
}

}  // namespace latchkey::broker
