// Writes the table of latches in a session's page (shim/wire/latch_table.h). One writer: the
// broker's thread.
#ifndef TOOLS_LATCHKEYD_SERVER_LATCH_TABLE_H_
#define TOOLS_LATCHKEYD_SERVER_LATCH_TABLE_H_

#include <cstdint>
#include <vector>

#include "policy/model/flow.h"
#include "shim/wire/latch_table.h"

namespace latchkey::broker {

// What a slot holds. Which two are the same: kSocket by the cookie; kTag by cookie, tag and remote;
// kLatch by the latch.
struct LatchLine {
  wire::LatchSlotKind kind = wire::LatchSlotKind::kSocket;
  uint8_t flags = 0;
  uint64_t cookie = 0;
  uint64_t latch = 0;
  uint32_t tag = 0;      // kTag
  SocketAddress remote;  // kTag, kLatch
  uint64_t inode = 0;    // kSocket

  auto operator<=>(const LatchLine&) const = default;
};

// Puts a line in, or in place of the same. False where there is no room.
bool PutLine(wire::LatchTable& table, const LatchLine& line);
// Takes the same out; nothing where there is none.
void EraseLine(wire::LatchTable& table, const LatchLine& line);
// Takes all of a socket out; with `keep`, all but that it wants to be told.
void EraseLinesOf(wire::LatchTable& table, uint64_t cookie, bool keep);
// Empties the table, whatever it was left in, and returns the sockets that wanted to be told.
std::vector<LatchLine> TakeSockets(wire::LatchTable& table);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_LATCH_TABLE_H_
