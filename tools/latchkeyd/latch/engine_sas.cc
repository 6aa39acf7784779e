// The SAs, and who is behind them: learnt from the kernel and the key manager, and told to whoever
// writes down for the next broker who vouched for them.

#include <set>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"

namespace latchkey::broker {

bool Engine::Direct(const Sa& sa, bool& inbound) {
  const bool to_us = kernel_.IsLocalAddress(sa.key.destination);
  if (!to_us && !kernel_.IsLocalAddress(sa.source)) return false;
  inbound = to_us;
  return true;
}

void Engine::LearnSa(const Sa& sa) {
  bool inbound = false;
  if (sa.larval || !Direct(sa, inbound)) return;
  PutSa(sa, inbound, keys_.Identify(sa, inbound));
}

void Engine::PutSa(const Sa& sa, bool inbound, Identified who) {
  std::optional<Voucher> before;
  if (const KnownSa* old = sas_.Find(sa.key)) {
    NoteTag(old->inbound ? &old->sa : nullptr, nullptr);
    if (std::optional<Identity> identity = old->Vouching()) {
      before = Voucher{old->sa, std::move(*identity), old->traffic};
    }
  }
  sas_.Put(sa, inbound, std::move(who), kernel_.NowMs());
  if (inbound) NoteTag(nullptr, &sa);
  const KnownSa& known = *sas_.Find(sa.key);
  std::optional<Identity> identity = known.Vouching();
  if (!identity) {
    if (before) observer_.OnVoucherEnd(sa.key);
    return;
  }
  const Voucher now{sa, std::move(*identity), known.traffic};
  if (before != now) observer_.OnVoucher(now);
}

void Engine::EraseSa(const SaKey& key, bool unused) {
  const KnownSa* known = sas_.Find(key);
  if (known == nullptr) return;
  if (known->Vouching()) observer_.OnVoucherEnd(key);
  if (known->inbound) NoteTag(&known->sa, nullptr);
  tagged_.erase(key);
  untagged_.erase(key);
  sas_.Erase(key, kernel_.NowMs(), unused);
}

Result<void> Engine::Resynchronise() {
  Result<std::vector<Sa>> sad = kernel_.DumpSad();
  if (!sad) return std::unexpected(sad.error());
  std::set<SaKey> keys;
  for (const Sa& sa : *sad) keys.insert(sa.key);
  std::vector<SaKey> gone;
  for (const auto& [key, known] : sas_.all()) {
    if (!keys.contains(key)) gone.push_back(key);
  }
  for (const SaKey& key : gone) EraseSa(key);
  for (const Sa& sa : *sad) LearnSa(sa);
  return ReadSpd();
}

void Engine::IdentifyAll() {
  std::vector<KnownSa> changed;
  for (const auto& [key, known] : sas_.all()) {
    Identified who = keys_.Identify(known.sa, known.inbound);
    if (who == known.who) continue;
    changed.push_back(known);
    changed.back().who = std::move(who);
  }
  for (KnownSa& known : changed) {
    PutSa(known.sa, known.inbound, std::move(known.who));
  }
}

void Engine::IdentifyAgain(const Flow& flow) {
  // The key manager may have learnt, or unlearnt, who is behind an SA since the SA's own event.
  std::vector<KnownSa> changed;
  for (const bool inbound : {false, true}) {
    for (const KnownSa* known : sas_.Carrying(flow, inbound)) {
      Identified who = keys_.Identify(known->sa, inbound);
      if (who == known->who) continue;
      changed.push_back(*known);
      changed.back().who = std::move(who);
    }
  }
  for (KnownSa& known : changed) {
    PutSa(known.sa, known.inbound, std::move(known.who));
  }
  if (changed.empty()) return;
  // What a new flow finds out counts for the old ones at once.
  for (auto& [id, entry] : database_.entries()) {
    if (entry.latch.flow.remote.address == flow.remote.address) CheckLatch(entry);
  }
}

bool Engine::Pending(const Flow& flow) const {
  for (const bool inbound : {false, true}) {
    for (const KnownSa* known : sas_.Carrying(flow, inbound)) {
      if (known->who.pending()) return true;
    }
  }
  return false;
}

void Engine::OnKeys() {
  bool changed = false;
  bool returned = false;
  for (const KeyEvent& event : keys_.TakeEvents()) {
    switch (event.kind) {
      case KeyEvent::Kind::kChanged:
        changed = true;
        break;
      case KeyEvent::Kind::kReturned:
        changed = returned = true;
        break;
      case KeyEvent::Kind::kPeerDead:
        for (auto& [id, entry] : database_.entries()) {
          const Latch& latch = entry.latch;
          const bool at = latch.protection.mode != Mode::kTransport ||
                          latch.flow.remote.address == event.remote;
          if (latch.state != State::kEstablished || latch.identity != event.peer || !at) continue;
          entry.peer_dead_at = kernel_.NowMs();
          CheckLatch(entry);
        }
        break;
      case KeyEvent::Kind::kKeys:
        TellBinding(event);
        break;
      case KeyEvent::Kind::kAcquired: {
        changed = true;
        IdentifyAll();
        Error why{"acquire SA", "negotiated, but no SA is as asked", Reason::kNoSa};
        if (event.reason != Reason::kNone) why = Error{"acquire SA", event.detail, event.reason};
        std::vector<uint64_t> tickets;
        for (auto& [ticket, waiting] : waiting_) {
          if (waiting.negotiation != event.ticket) continue;
          waiting.negotiation = 0;
          tickets.push_back(ticket);
        }
        for (const uint64_t ticket : tickets) Deliver(ticket, &why);
        for (const uint64_t id : std::set(larvals_)) {
          Entry* entry = database_.Find(id);
          if (entry == nullptr || entry->negotiation != event.ticket) continue;
          entry->negotiation = 0;
          TryLarval(*entry, &why);
        }
        break;
      }
    }
  }
  if (!changed) return;
  IdentifyAll();
  CheckAll();
  if (!returned) return;
  // What became of their SAs while it was away it cannot know, and will not ask for by itself.
  for (auto& [id, entry] : database_.entries()) {
    if (entry.latch.state != State::kEstablished || entry.stalled_since == 0) continue;
    if (entry.rekindled_at != 0 || entry.latch.listener != 0) continue;
    entry.rekindled_at = kernel_.NowMs();
    Rekindle(entry);
  }
}

}  // namespace latchkey::broker
