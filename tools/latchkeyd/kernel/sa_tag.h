// Has the kernel mark what comes under an SA, by changing the SA in place (XFRMA_SET_MARK).
//
// The SA is read and sent back with XFRM_MSG_UPDSA. For an SA that is there and valid the kernel
// takes over its lifetimes' limits, NAT-T ports and mark, and throws the rest of the message away:
// keys, counters, replay state and time of birth stay (xfrm_state_update() in
// net/xfrm/xfrm_state.c). It never makes an SA: one that went meanwhile is an error. The one thing
// that shows: a soft expiry that was told already is told once more.
#ifndef TOOLS_LATCHKEYD_KERNEL_SA_TAG_H_
#define TOOLS_LATCHKEYD_KERNEL_SA_TAG_H_

#include <cstdint>
#include <span>
#include <vector>

#include "policy/model/error.h"
#include "tools/latchkeyd/kernel/netlink_socket.h"
#include "tools/latchkeyd/latch/sa.h"

namespace latchkey::broker {

// Implements KernelPort::TagSa(). kNoSa when it is not there any more, kConflictSa when another one
// is in its place, kOffloadUntagged when a card does its work: sending it back would make the card
// do it twice. kBadRequest for a tag outside its mask, or an SA that is none yet.
Result<void> TagIncomingSa(NetlinkSocket& socket, const Sa& sa, uint32_t tag, uint32_t mask);

// Returns the GETSA request for it.
std::vector<uint8_t> BuildGetSa(const Sa& sa);

// Returns the UPDSA request made of `told`, the kernel's NEWSA message for the SA: all that it
// says, but `tag` in the bits `mask` of what it marks packets with. It holds keys, so the caller
// wipes it. kKernelRefused when `told` is malformed.
Result<std::vector<uint8_t>> BuildTagSa(std::span<const uint8_t> told, uint32_t tag, uint32_t mask);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_SA_TAG_H_
