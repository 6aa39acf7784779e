// Reads the table of latches in the session's page. Pure: nothing is written, and what cannot be
// read steadily is not known. Async-signal-safe.
#ifndef SHIM_LATCH_TABLE_H_
#define SHIM_LATCH_TABLE_H_

#include <cstdint>

#include "shim/wire/latch_table.h"
#include "shim/wire/messages.h"

namespace latchkey::shim {

// What the program of a socket wants to be told.
struct Wants {
  bool latches = false;  // the latch of each datagram
  bool marks = false;    // SO_RCVMARK
  uint64_t latch = 0;    // of the socket's connection
};
Wants WantsOf(const wire::LatchTable& table, uint64_t cookie);

// Returns the latch of what came to a socket under `tag` from `remote` (null: not known; then only
// where that leaves no doubt), 0 for none or not known.
uint64_t LatchBehind(const wire::LatchTable& table, uint64_t cookie, uint32_t tag,
                     const wire::Endpoint* remote);

// Returns the errno that a datagram is not to be sent with under a latch, 0 for none: EPERM, it is
// another socket's or another destination's (`to` null: that of the socket's connection);
// ECONNRESET, it is not ESTABLISHED, or there is none (any more).
int SendErrorUnder(const wire::LatchTable& table, uint64_t cookie, uint64_t latch,
                   const wire::Endpoint* to);

}  // namespace latchkey::shim

#endif  // SHIM_LATCH_TABLE_H_
