// The key managers of this host as one: manual keys first, as /etc/latchkey/pad.toml has them, then
// strongSwan's charon over VICI.
#ifndef TOOLS_LATCHKEYD_KEYMGR_KEYRING_H_
#define TOOLS_LATCHKEYD_KEYMGR_KEYRING_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/latchkeyd/keymgr/manual/manual.h"
#include "tools/latchkeyd/keymgr/vici/vici.h"
#include "tools/latchkeyd/latch/key_manager.h"

namespace latchkey::broker {

class Keyring : public KeyManager {
 public:
  // `pad`: the PAD file. `vici`: charon's socket; neither need exist. `log` hears what is found
  // wrong.
  Keyring(const std::string& pad, const std::string& vici,
          const std::function<void(const std::string&)>& log);

  // For epoll, to be read from: then OnReadable(), and what it brought is in TakeEvents().
  int Fd() const { return vici_.Fd(); }
  void OnReadable() { vici_.OnReadable(); }

  // Whom the PAD names; where it names nobody, whom charon names; ambiguous-peer where both name
  // somebody, and not the same.
  Identified Identify(const Sa& sa, bool inbound) override;
  // charon's. Where there is none, no-sa: manual keys cannot be negotiated.
  Result<uint64_t> Acquire(const AcquireRequest& request) override;
  void Abandon(uint64_t ticket) override { vici_.Abandon(ticket); }
  std::vector<KeyEvent> TakeEvents() override { return vici_.TakeEvents(); }

  // Reads the PAD again if it has changed. True when SAs must be identified again.
  bool Refresh() { return manual_.Refresh(); }

 private:
  const std::string vici_path_;
  ManualKeyManager manual_;
  ViciKeyManager vici_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KEYMGR_KEYRING_H_
