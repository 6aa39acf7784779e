// What a program asks about its own sockets (RFC 5660, 2.3: INQUIRE_LATCH).

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

Result<SocketFacts> Engine::Reserve(int fd) {
  Result<SocketFacts> facts = InspectTcp(fd);
  if (!facts) return facts;
  if (facts->tcp_state != kTcpClose || database_.FindByCookie(facts->cookie) != nullptr) {
    return Fail(Reason::kBadRequest, "reserve socket", "it was used before");
  }
  // The standing BLOCK holds what leaves with the mark: a program cannot be quicker than its
  // request by another way than the shim.
  if (Result<void> done = kernel_.SetMark(fd, *facts, options_.guard_mark, options_.guard_mark);
      !done) {
    return std::unexpected(done.error());
  }
  return facts;
}

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
