// What a program asks about its own sockets (RFC 5660, 2.3: INQUIRE_LATCH).

#include "tools/latchkeyd/latch/engine.h"

namespace latchkey::broker {

std::optional<Latch> Engine::LatchOf(int fd) {
  const Result<SocketFacts> facts = kernel_.Inspect(fd);
  if (!facts || !facts->inet || !facts->own_netns) return std::nullopt;
  const Entry* entry = database_.FindByCookie(facts->cookie);
  if (entry == nullptr) return std::nullopt;
  Latch latch = entry->latch;
  // The database hears of what the kernel chose at connect a little later.
  if (facts->local.port != 0) latch.flow.local = facts->local;
  return latch;
}

}  // namespace latchkey::broker
