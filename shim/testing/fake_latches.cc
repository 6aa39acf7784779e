#include "shim/testing/fake_latches.h"

#include <sys/socket.h>

#include <cstring>

#include "shim/wire/codec.h"

namespace latchkey::testing {

void FillLatches(wire::Page& page, uint64_t cookie, uint32_t flags, bool connected) {
  using Kind = wire::LatchSlotKind;
  wire::LatchTable& table = page.latches;
  for (wire::LatchSlot& slot : table.slots) slot.cookie = 0;
  if ((flags & wire::kRequestLatches) == 0) return;
  const auto put = [&](uint32_t place, Kind kind, uint8_t slot_flags, uint64_t owner,
                       uint64_t latch, uint32_t tag) {
    while (table.slots[place].cookie != 0) place = (place + 1) & (wire::kLatchSlots - 1);
    wire::LatchSlot& slot = table.slots[place];
    slot.latch = latch;
    slot.what = wire::WhatOf(kind, slot_flags, AF_INET, 0, tag);
    const uint8_t loopback[8] = {127, 0, 0, 1};
    uint64_t address = 0;
    std::memcpy(&address, loopback, sizeof(address));
    slot.address[0] = address;
    slot.cookie = owner;
  };
  const bool marks = (flags & wire::kRequestMarks) != 0;
  table.tag_mask = 0x7fff0000;
  put(wire::PlaceOfSocket(cookie), Kind::kSocket, marks ? wire::kSlotKeepMarks : 0, cookie,
      connected ? 7 : 0, 0);
  put(wire::PlaceOfTag(cookie, 0x10000, 0), Kind::kTag, 0, cookie, 7, 0x10000);
  put(wire::PlaceOfLatch(7), Kind::kLatch, wire::kSlotEstablished, cookie, 7, 0);
  put(wire::PlaceOfLatch(8), Kind::kLatch, 0, cookie, 8, 0);
  put(wire::PlaceOfLatch(9), Kind::kLatch, wire::kSlotEstablished, cookie + 1, 9, 0);
  page.flags |= wire::kPageLatches;
}

}  // namespace latchkey::testing
