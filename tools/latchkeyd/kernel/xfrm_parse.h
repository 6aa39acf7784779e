// Reads the kernel's XFRM netlink messages (include/uapi/linux/xfrm.h).
//
// Pure functions over octets: every length is checked, unknown attributes are skipped. libnl's own
// parser (3.7) takes the header of every message for that of NEWSA, so that it misreads DELSA and
// EXPIRE and knows nothing of flushes; here libnl gives the attribute iterators only. A message is
// one nlmsghdr with its payload, and must lie at an address divisible by 4, as in any buffer that
// was received into.
#ifndef TOOLS_LATCHKEYD_KERNEL_XFRM_PARSE_H_
#define TOOLS_LATCHKEYD_KERNEL_XFRM_PARSE_H_

#include <cstdint>
#include <optional>
#include <span>

#include "policy/model/flow.h"
#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/latchkeyd/latch/sa.h"

namespace latchkey::broker {

// What the kernel does with a packet that no SPD entry matches (XFRM_MSG_GETDEFAULT, Linux 5.15).
struct SpdDefault {
  bool block_in = false;
  bool block_out = false;

  auto operator<=>(const SpdDefault&) const = default;
};

// Reads NEWSA or UPDSA. Nothing for another type or a malformed message. Algorithms bear our names;
// one that policy/suites.h does not list keeps the kernel's, which no policy can name. An SA with
// no ESP or AH algorithm at all (larval, IPCOMP) is `larval`: it protects nothing.
std::optional<Sa> ParseSa(std::span<const uint8_t> octets);

// Reads NEWPOLICY or UPDPOLICY. Nothing for another type or a malformed message. Of several
// templates the first that is not optional counts.
std::optional<SpdEntry> ParseSpdEntry(std::span<const uint8_t> octets);

// Reads the answer to GETDEFAULT.
std::optional<SpdDefault> ParseSpdDefault(std::span<const uint8_t> octets);

// Reads an event. Nothing for what is of no interest (soft expiry, ACQUIRE). An expired SA comes
// without its algorithms (`larval`): its key is what counts. A message that is
// malformed, of an unknown type, or that changes SAs in place without showing them (MIGRATE,
// MAPPING) is kOverrun: the databases must be dumped again.
std::optional<KernelEvent> ParseEvent(std::span<const uint8_t> octets);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_XFRM_PARSE_H_
