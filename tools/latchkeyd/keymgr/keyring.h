// All key managers of a broker as one: what the administrator wrote down (the PAD) comes first,
// then what charon verified.
#ifndef TOOLS_LATCHKEYD_KEYMGR_KEYRING_H_
#define TOOLS_LATCHKEYD_KEYMGR_KEYRING_H_

#include <cstdint>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/keymgr/manual/manual.h"
#include "tools/latchkeyd/keymgr/vici/vici.h"
#include "tools/latchkeyd/latch/key_manager.h"

namespace latchkey::broker {

class Keyring : public KeyManager {
 public:
  // Both must outlive it. `charon` may be null: keys are then manual.
  Keyring(ManualKeyManager& pad, ViciKeyManager* charon) : pad_(pad), charon_(charon) {}

  // An SA that the PAD names is that peer's; ambiguous-peer where charon knows it to be of another.
  // charon is not asked about it, so that can come later, with a kChanged. Any other SA is charon's
  // to name.
  Identified Identify(const Sa& sa, bool inbound) override;
  // Only charon negotiates, so tickets and events are charon's; no-sa on a host without one.
  Result<uint64_t> Acquire(const AcquireRequest& request) override;
  void Abandon(uint64_t ticket) override;
  void Release(const Flow& flow) override;
  // Charon's alone: manual keys are nobody's public ones.
  uint64_t AskKeys(const Identity& identity) override;
  std::vector<KeyEvent> TakeEvents() override;

  // To be watched for reading, with OnReadable() and then TakeEvents() when it is; -1: nothing is.
  int Fd() const { return charon_ == nullptr ? -1 : charon_->Fd(); }
  void OnReadable();

  // Reads the PAD again if it has changed. True when SAs must be identified again.
  bool Refresh() { return pad_.Refresh(); }

 private:
  ManualKeyManager& pad_;
  ViciKeyManager* const charon_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KEYMGR_KEYRING_H_
