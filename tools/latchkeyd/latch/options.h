// What an engine is told at its start: marks, times and limits. Times are in milliseconds.
#ifndef TOOLS_LATCHKEYD_LATCH_OPTIONS_H_
#define TOOLS_LATCHKEYD_LATCH_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "policy/system_policy.h"

namespace latchkey::broker {

struct Options {
  uint32_t guard_mark = 0x80000000;  // one bit of SO_MARK
  uint32_t tag_mask = 0x7fff0000;    // the bits of what SAs give datagrams for a mark that are ours
  int64_t sa_grace_ms = 15'000;      // how long a latch may lack its SA before it breaks (no-sa)
  int64_t linger_ms = 65'000;        // how long a closed flow's SPD entry stays: TIME_WAIT is 60 s
  int64_t reap_ms = 2'000;           // how often closed sockets are looked for
  int64_t inline_ms = 100;           // how long a non-blocking connect is kept for its SA
  int64_t identify_ms = 2'000;       // how long accept waits for the key manager's word
  int64_t km_grace_ms = 15'000;  // how long a latch may have SAs that nobody vouches for any more
  int64_t name_ms = 15'000;      // how long an SA that serves a latch may go without a name
  int64_t overlap_ms = 1'000;    // how long an incoming pin waits for the peer to move
  size_t latches_per_uid = 65'536;
  // The filter's maps are the whole host's: of each one user, root excepted, gets a quarter.
  size_t filter_share = 16'384;     // of regions, and of peers that are asked about
  size_t admission_share = 65'536;  // of what is admitted under SAs
  bool shared_guards = false;       // another broker's standing guards may serve us too
  // What system.toml says.
  std::shared_ptr<const policy::SystemPolicy> system =
      std::make_shared<const policy::SystemPolicy>();
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_OPTIONS_H_
