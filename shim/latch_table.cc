#include "shim/latch_table.h"

#include <sys/syscall.h>

#include <cerrno>

#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::LatchSlot;
using wire::LatchSlotKind;
using wire::LatchTable;

constexpr int kTries = 1000;  // a change takes the broker a microsecond, unless it is interrupted

uint64_t Load(const std::atomic<uint64_t>& word) { return word.load(std::memory_order_relaxed); }

// Does what reads the table until it was not changed meanwhile; else returns `otherwise`.
template <typename Value, typename Read>
Value Steadily(const LatchTable& table, Value otherwise, Read read) {
  for (int i = 0; i < kTries; ++i) {
    const uint32_t before = table.generation.load(std::memory_order_acquire);
    if ((before & 1) == 0) {
      const Value value = read();
      std::atomic_thread_fence(std::memory_order_acquire);
      if (table.generation.load(std::memory_order_relaxed) == before) return value;
    }
    wire::RawSyscall(SYS_sched_yield);
  }
  return otherwise;
}

// Calls it with each slot of the search that begins at `place`, until it says true.
template <typename Visit>
void Search(const LatchTable& table, uint32_t place, Visit visit) {
  for (uint32_t i = 0; i < wire::kLatchSlots; ++i) {
    const LatchSlot& slot = table.slots[(place + i) & (wire::kLatchSlots - 1)];
    const uint64_t cookie = Load(slot.cookie);
    if (cookie == 0 || visit(slot, cookie)) return;
  }
}

bool IsAt(const LatchSlot& slot, const wire::Endpoint& remote) {
  uint64_t words[2];
  static_assert(sizeof(words) == sizeof(remote.address));
  __builtin_memcpy(words, remote.address, sizeof(words));
  return wire::FamilyOf(Load(slot.what)) == remote.family && Load(slot.address[0]) == words[0] &&
         Load(slot.address[1]) == words[1];
}

// Of that tag and port; without a remote, of the one latch that all such are of.
uint64_t FindTag(const LatchTable& table, uint64_t cookie, uint32_t tag, uint16_t port,
                 const wire::Endpoint* remote) {
  uint64_t found = 0;
  Search(table, wire::PlaceOfTag(cookie, tag, port), [&](const LatchSlot& slot, uint64_t owner) {
    const uint64_t what = Load(slot.what);
    if (owner != cookie || wire::KindOf(what) != LatchSlotKind::kTag || wire::TagOf(what) != tag ||
        wire::PortOf(what) != port || (remote != nullptr && !IsAt(slot, *remote))) {
      return false;
    }
    const uint64_t latch = Load(slot.latch);
    const bool another = found != 0 && found != latch;
    found = another ? 0 : latch;
    return another || remote != nullptr;
  });
  return found;
}

Wants FindSocket(const LatchTable& table, uint64_t cookie) {
  Wants wants;
  Search(table, wire::PlaceOfSocket(cookie), [&](const LatchSlot& slot, uint64_t owner) {
    const uint64_t what = Load(slot.what);
    if (owner != cookie || wire::KindOf(what) != LatchSlotKind::kSocket) return false;
    wants.latches = true;
    wants.marks = (wire::FlagsOf(what) & wire::kSlotKeepMarks) != 0;
    wants.latch = Load(slot.latch);
    return true;
  });
  return wants;
}

}  // namespace

Wants WantsOf(const LatchTable& table, uint64_t cookie) {
  return Steadily(table, Wants{}, [&] { return FindSocket(table, cookie); });
}

uint64_t LatchBehind(const LatchTable& table, uint64_t cookie, uint32_t tag,
                     const wire::Endpoint* remote) {
  return Steadily(table, uint64_t{0}, [&] {
    const uint64_t any = FindTag(table, cookie, tag, 0, remote);
    return any != 0 || remote == nullptr ? any : FindTag(table, cookie, tag, remote->port, remote);
  });
}

int SendErrorUnder(const LatchTable& table, uint64_t cookie, uint64_t latch,
                   const wire::Endpoint* to) {
  return Steadily(table, ECONNRESET, [&] {
    int error = ECONNRESET;
    Search(table, wire::PlaceOfLatch(latch), [&](const LatchSlot& slot, uint64_t owner) {
      const uint64_t what = Load(slot.what);
      if (wire::KindOf(what) != LatchSlotKind::kLatch || Load(slot.latch) != latch) return false;
      const uint16_t port = wire::PortOf(what);
      const bool fits = to == nullptr ? FindSocket(table, cookie).latch == latch
                                      : IsAt(slot, *to) && (port == 0 || port == to->port);
      const bool stands = (wire::FlagsOf(what) & wire::kSlotEstablished) != 0;
      error = owner != cookie || !fits ? EPERM : stands ? 0 : ECONNRESET;
      return true;
    });
    return error;
  });
}

}  // namespace latchkey::shim
