#include "tools/latchkeyd/keymgr/keyring.h"

#include <optional>

namespace latchkey::broker {

Identified Keyring::Identify(const Sa& sa, bool inbound) {
  Identified written = pad_.Identify(sa, inbound);
  if (charon_ == nullptr) return written;
  if (!written.known()) return charon_->Identify(sa, inbound);
  const std::optional<Identified> verified = charon_->Known(sa, inbound);
  if (!verified) return written;
  if (verified->pending()) return Identified::Pending();
  const bool contradicts =
      verified->known() ? verified->verified.identity.peer_id != written.verified.identity.peer_id
                        : verified->why == Reason::kAmbiguousPeer;
  return contradicts ? Identified::Nobody(Reason::kAmbiguousPeer) : written;
}

Result<uint64_t> Keyring::Acquire(const AcquireRequest& request) {
  if (charon_ == nullptr || charon_->absent()) return pad_.Acquire(request);
  return charon_->Acquire(request);
}

void Keyring::Abandon(uint64_t ticket) {
  if (charon_ != nullptr) charon_->Abandon(ticket);
}

void Keyring::Release(const Flow& flow) {
  if (charon_ != nullptr) charon_->Release(flow);
}

uint64_t Keyring::AskKeys(const Identity& identity) {
  return charon_ == nullptr ? 0 : charon_->AskKeys(identity);
}

std::vector<KeyEvent> Keyring::TakeEvents() {
  std::vector<KeyEvent> events = pad_.TakeEvents();
  if (charon_ == nullptr) return events;
  for (KeyEvent& event : charon_->TakeEvents()) events.push_back(std::move(event));
  return events;
}

void Keyring::OnReadable() {
  if (charon_ != nullptr) charon_->OnReadable();
}

}  // namespace latchkey::broker
