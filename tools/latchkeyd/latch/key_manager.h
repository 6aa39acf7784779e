// What the latch database needs of a key manager: who is behind an SA. `keymgr/` implements it;
// fake_key_manager.h stands in for it in tests.
#ifndef TOOLS_LATCHKEYD_LATCH_KEY_MANAGER_H_
#define TOOLS_LATCHKEYD_LATCH_KEY_MANAGER_H_

#include <optional>

#include "policy/model/protection.h"
#include "tools/latchkeyd/latch/sa.h"

namespace latchkey::broker {

struct Verified {
  Identity identity;
  bool static_reqid = false;  // the reqid is bound to this one identity and never re-used
  bool operator==(const Verified&) const = default;
};

class KeyManager {
 public:
  virtual ~KeyManager() = default;

  // Says who is at the other end of `sa`; `inbound` tells which of its addresses is the peer's.
  // Nothing when it knows nobody, or more than one: such an SA is nobody's.
  virtual std::optional<Verified> Identify(const Sa& sa, bool inbound) = 0;

  // True when an SA could be had by asking (a negotiation); false: what the SAD holds is all.
  virtual bool CanAcquire() const = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_KEY_MANAGER_H_
