// A KeyManager for tests: who is behind an SA is what the test wrote down, by reqid or by SPI.
#ifndef TOOLS_LATCHKEYD_LATCH_FAKE_KEY_MANAGER_H_
#define TOOLS_LATCHKEYD_LATCH_FAKE_KEY_MANAGER_H_

#include <map>

#include "tools/latchkeyd/latch/key_manager.h"

namespace latchkey::broker {

class FakeKeyManager : public KeyManager {
 public:
  std::optional<Verified> Identify(const Sa& sa, bool) override {
    if (auto it = by_spi.find(sa.key.spi); it != by_spi.end()) return it->second;
    if (auto it = by_reqid.find(sa.reqid); it != by_reqid.end()) return it->second;
    return std::nullopt;
  }
  bool CanAcquire() const override { return false; }

  void Name(uint32_t reqid, const std::string& peer) {
    by_reqid[reqid] = Verified{Identity{peer, "me", "manual"}, true};
  }

  std::map<uint32_t, Verified> by_reqid;
  std::map<uint32_t, Verified> by_spi;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_FAKE_KEY_MANAGER_H_
