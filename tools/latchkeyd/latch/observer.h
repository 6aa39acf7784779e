// Who hears of what happens to latches: the server turns it into log lines, page entries and
// journal records.
#ifndef TOOLS_LATCHKEYD_LATCH_OBSERVER_H_
#define TOOLS_LATCHKEYD_LATCH_OBSERVER_H_

#include <string>

#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/voucher.h"

namespace latchkey::broker {

class Observer {
 public:
  virtual ~Observer() = default;

  // A latch changed its state; `from` equals the new state when it was just made, and when a BROKEN
  // one has another reason, or was taken over (none is made BROKEN). For kBroken it is called
  // before the kernel is told, so that the page says so first (DESIGN: page, BLOCK, abort, log).
  virtual void OnState(const Entry& entry, State from) = 0;
  // The latch has lost its last SA, or has one again.
  virtual void OnStall(const Entry& entry, bool stalled) = 0;
  // The pins of a latch moved: its reqid, SPIs, or ends.
  virtual void OnMove(const Entry& entry) = 0;
  // Somebody vouches for an SA, or nobody does any more.
  virtual void OnVoucher(const Voucher& voucher) = 0;
  virtual void OnVoucherEnd(const SaKey& key) = 0;
  // A peer's datagrams are about to be taken in under an admission, or are no more; `latch`: its.
  virtual void OnAdmission(const DatagramAdmission& admission, uint64_t latch, bool adding) {
    (void)admission;
    (void)latch;
    (void)adding;
  }
  // An SPD entry of ours is about to be added, or has been taken away.
  virtual void OnGuard(const Guard& guard, bool adding) = 0;
  // A request that was told to wait is decided: never kWait again.
  virtual void OnAnswer(uint64_t ticket, const Answer& answer) = 0;
  // What AskBinding() began is known: the binding (binding.h), empty: there is none.
  virtual void OnBinding(uint64_t ticket, const std::string& binding) {
    (void)ticket;
    (void)binding;
  }
  virtual void OnRefusal(const Client& client, const Flow& flow, wire::Reason reason,
                         const std::string& detail) = 0;
  // What the SPD asks has changed: what was compiled by it is stale.
  virtual void OnSystem() = 0;
  virtual void OnWarning(const std::string& text) = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_OBSERVER_H_
