#include "shim/parts.h"

#include "shim/fd_bits.h"

namespace latchkey::shim {
namespace {

constinit FdBits waiting;
constinit FdBits corked;

}  // namespace

constinit std::atomic<bool> any_parts{false};

// Writes nothing that is there already: TCP's programs send in parts too, from many threads.
void NotePart(int fd, bool more) {
  if (!more && !corked.Has(fd)) return waiting.Clear(fd);
  if (!waiting.Has(fd)) waiting.Set(fd);
  if (!any_parts.load(std::memory_order_relaxed)) any_parts.store(true, std::memory_order_relaxed);
}

void NoteCork(int fd, bool on) {
  if (!on) {
    corked.Clear(fd);
    return waiting.Clear(fd);
  }
  corked.Set(fd);
  any_parts.store(true, std::memory_order_relaxed);
}

bool TakePart(int fd) {
  const bool waits = waiting.Has(fd);
  waiting.Clear(fd);
  return waits;
}

void FreshParts(int fd) {
  if (any_parts.load(std::memory_order_relaxed)) NoteCork(fd, false);
}

}  // namespace latchkey::shim
