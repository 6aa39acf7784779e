#include "tools/latchkeyd/server/latch_table.h"

#include <cstring>
#include <optional>

#include "policy/model/address.h"

namespace latchkey::broker {
namespace {

using wire::LatchSlot;
using wire::LatchSlotKind;
using wire::LatchTable;

constexpr uint32_t kMask = wire::kLatchSlots - 1;
constexpr auto kRelaxed = std::memory_order_relaxed;

// Readers try again while it lives. A broker that was killed meanwhile leaves it odd: then nothing
// is known until the next one has emptied it.
class Change {
 public:
  explicit Change(LatchTable& table) : table_(table) {
    table_.generation.store(table_.generation.load(kRelaxed) | 1, kRelaxed);
    std::atomic_thread_fence(std::memory_order_release);
  }
  ~Change() {
    table_.generation.store(table_.generation.load(kRelaxed) + 1, std::memory_order_release);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  LatchTable& table_;
};

// What a slot has in place of an address, or as its octets.
struct Octets {
  uint64_t words[2] = {};
};

Octets OctetsOf(const LatchLine& line) {
  if (line.kind == LatchSlotKind::kSocket) return {{line.inode, 0}};
  const wire::Endpoint endpoint = ToWire(line.remote);
  Octets octets;
  static_assert(sizeof(octets) == sizeof(endpoint.address));
  std::memcpy(&octets, endpoint.address, sizeof(octets));
  return octets;
}

uint32_t PlaceOf(const LatchSlot& slot) {
  const uint64_t what = slot.what.load(kRelaxed);
  const uint64_t cookie = slot.cookie.load(kRelaxed);
  switch (wire::KindOf(what)) {
    case LatchSlotKind::kTag:
      return wire::PlaceOfTag(cookie, wire::TagOf(what), wire::PortOf(what));
    case LatchSlotKind::kLatch:
      return wire::PlaceOfLatch(slot.latch.load(kRelaxed));
    case LatchSlotKind::kSocket:
      break;
  }
  return wire::PlaceOfSocket(cookie);
}

uint32_t PlaceOf(const LatchLine& line) {
  switch (line.kind) {
    case LatchSlotKind::kTag:
      return wire::PlaceOfTag(line.cookie, line.tag, line.remote.port);
    case LatchSlotKind::kLatch:
      return wire::PlaceOfLatch(line.latch);
    case LatchSlotKind::kSocket:
      break;
  }
  return wire::PlaceOfSocket(line.cookie);
}

bool IsSame(const LatchSlot& slot, const LatchLine& line) {
  const uint64_t what = slot.what.load(kRelaxed);
  if (wire::KindOf(what) != line.kind) return false;
  if (line.kind == LatchSlotKind::kLatch) return slot.latch.load(kRelaxed) == line.latch;
  if (slot.cookie.load(kRelaxed) != line.cookie) return false;
  if (line.kind == LatchSlotKind::kSocket) return true;
  const Octets octets = OctetsOf(line);
  return wire::TagOf(what) == line.tag && wire::PortOf(what) == line.remote.port &&
         wire::FamilyOf(what) == ToWire(line.remote).family &&
         slot.address[0].load(kRelaxed) == octets.words[0] &&
         slot.address[1].load(kRelaxed) == octets.words[1];
}

// Returns the place of the same line, or else of the free slot that ends the search.
uint32_t Find(const LatchTable& table, const LatchLine& line) {
  uint32_t place = PlaceOf(line);
  while (table.slots[place].cookie.load(kRelaxed) != 0 && !IsSame(table.slots[place], line)) {
    place = (place + 1) & kMask;  // one is free always: kMostLatchSlots
  }
  return place;
}

void Copy(const LatchSlot& from, LatchSlot& to) {
  to.latch.store(from.latch.load(kRelaxed), kRelaxed);
  to.what.store(from.what.load(kRelaxed), kRelaxed);
  for (int i : {0, 1}) to.address[i].store(from.address[i].load(kRelaxed), kRelaxed);
  to.cookie.store(from.cookie.load(kRelaxed), kRelaxed);
}

// Frees a slot; those behind it that its being taken has kept from their places move up.
void Free(LatchTable& table, uint32_t hole) {
  for (uint32_t next = (hole + 1) & kMask; table.slots[next].cookie.load(kRelaxed) != 0;
       next = (next + 1) & kMask) {
    const uint32_t home = PlaceOf(table.slots[next]);
    if (((next - home) & kMask) < ((next - hole) & kMask)) continue;
    Copy(table.slots[next], table.slots[hole]);
    hole = next;
  }
  table.slots[hole].cookie.store(0, kRelaxed);
  table.used.fetch_sub(1, kRelaxed);
}

}  // namespace

bool PutLine(LatchTable& table, const LatchLine& line) {
  LatchSlot& slot = table.slots[Find(table, line)];
  const bool fresh = slot.cookie.load(kRelaxed) == 0;
  if (fresh && table.used.load(kRelaxed) >= wire::kMostLatchSlots) return false;
  const Change change(table);
  const wire::Endpoint remote = ToWire(line.remote);
  const Octets octets = OctetsOf(line);
  slot.latch.store(line.latch, kRelaxed);
  slot.what.store(wire::WhatOf(line.kind, line.flags, remote.family, remote.port, line.tag),
                  kRelaxed);
  for (int i : {0, 1}) slot.address[i].store(octets.words[i], kRelaxed);
  slot.cookie.store(line.cookie, kRelaxed);
  if (fresh) table.used.fetch_add(1, kRelaxed);
  return true;
}

void EraseLine(LatchTable& table, const LatchLine& line) {
  const uint32_t place = Find(table, line);
  if (table.slots[place].cookie.load(kRelaxed) == 0) return;
  const Change change(table);
  Free(table, place);
}

void EraseLinesOf(LatchTable& table, uint64_t cookie, bool keep) {
  for (uint32_t place = 0; place < wire::kLatchSlots;) {
    const LatchSlot& slot = table.slots[place];
    const bool kept = keep && wire::KindOf(slot.what.load(kRelaxed)) == LatchSlotKind::kSocket;
    if (slot.cookie.load(kRelaxed) == cookie && !kept) {
      const Change change(table);  // short: readers wait for its end
      Free(table, place);          // and look at what came there
    } else {
      ++place;
    }
  }
}

std::vector<LatchLine> TakeSockets(LatchTable& table) {
  const Change change(table);
  std::vector<LatchLine> sockets;
  for (LatchSlot& slot : table.slots) {
    const uint64_t what = slot.what.load(kRelaxed);
    const uint64_t cookie = slot.cookie.load(kRelaxed);
    if (cookie == 0) continue;  // not written to: such pages of the file take no memory
    slot.cookie.store(0, kRelaxed);
    if (wire::KindOf(what) != LatchSlotKind::kSocket) continue;
    sockets.push_back({.kind = LatchSlotKind::kSocket,
                       .flags = wire::FlagsOf(what),
                       .cookie = cookie,
                       .latch = 0,
                       .tag = 0,
                       .remote = {},
                       .inode = slot.address[0].load(kRelaxed)});
  }
  table.used.store(0, kRelaxed);
  return sockets;
}

}  // namespace latchkey::broker
