// A security association as the kernel's SAD reports it.
#ifndef TOOLS_LATCHKEYD_LATCH_SA_H_
#define TOOLS_LATCHKEYD_LATCH_SA_H_

#include <compare>
#include <cstdint>

#include "policy/model/address.h"
#include "policy/model/flow.h"
#include "policy/model/latch.h"
#include "policy/model/protection.h"

namespace latchkey::broker {

// Names one SA: what the kernel looks it up by.
struct SaKey {
  Address destination;
  uint32_t spi = 0;  // host order
  SaProtocol protocol = SaProtocol::kNone;

  auto operator<=>(const SaKey&) const = default;
};

struct Sa {
  SaKey key;
  Address source;
  uint32_t reqid = 0;
  Selector selector;  // family kNone = any
  Protection protection;
  uint32_t mark = 0, mark_mask = 0;
  uint32_t if_id = 0;
  uint32_t set_mark = 0, set_mask = 0;  // what it gives packets for a mark (XFRMA_SET_MARK)
  Offload offload = Offload::kNone;
  bool larval = false;  // SPI 0 or no algorithm: no SA yet
  uint64_t added = 0;   // when it was made, by the kernel's clock: seconds since 1970; 0 = not said

  auto operator<=>(const Sa&) const = default;

  // True when the SA can carry packets of `protocol` from `from` to `to`: addresses equal
  // (transport mode) and the selector matches. Marked, interface and larval SAs carry nothing of
  // ours.
  bool Carries(uint8_t flow_protocol, const SocketAddress& from, const SocketAddress& to) const {
    if (larval || if_id != 0) return false;
    if (protection.mode == Mode::kTransport &&
        (source != from.address || key.destination != to.address)) {
      return false;
    }
    return selector.Matches(flow_protocol, from, to);
  }
};

// True when both are one SA that nobody has changed but for what it gives packets for a mark: that
// changes as it is tagged, and says nothing of whom it is with.
inline bool SameButTag(const Sa& a, const Sa& b) {
  Sa other = b;
  other.set_mark = a.set_mark;
  other.set_mask = a.set_mask;
  return a == other;
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_SA_H_
