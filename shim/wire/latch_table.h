// The latches of a session's datagrams: which latch what came under a tag is of, and which latches
// stand. Part of the session's page (page.h): the broker writes it, the shim reads it, so that
// neither receiving nor sending under a latch asks anybody.
//
// Only of sockets whose programs want to be told of latches (LATCHKEY_LATCHES). A hash table of
// slots with linear probing; one without a socket ends the search. No slot is left behind by what
// was taken out, so searches stay short. Its generation is odd while it is being changed.
#ifndef SHIM_WIRE_LATCH_TABLE_H_
#define SHIM_WIRE_LATCH_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace latchkey::wire {

inline constexpr uint32_t kLatchSlots = 8192;  // a power of two
inline constexpr uint32_t kMostLatchSlots = kLatchSlots / 8 * 7;

// What a slot says.
enum class LatchSlotKind : uint8_t {
  kSocket = 1,  // a socket wants to be told; `latch`: of its connection, 0: it is not under one
  kTag = 2,     // what comes to the socket from `remote` under `tag` is of `latch`
  kLatch = 3,   // `latch` is the socket's, with `remote`
};

inline constexpr uint8_t kSlotKeepMarks = 1;    // kSocket: the program asked for SO_RCVMARK, too
inline constexpr uint8_t kSlotEstablished = 2;  // kLatch

struct LatchSlot {
  std::atomic<uint64_t> cookie;  // SO_COOKIE; 0: the slot is free
  std::atomic<uint64_t> latch;
  std::atomic<uint64_t> what;  // WhatOf()
  // Octets as they are; v4 in the first four, the rest zero. kSocket: the inode, and zero.
  std::atomic<uint64_t> address[2];
};
static_assert(sizeof(LatchSlot) == 40);

struct LatchTable {
  std::atomic<uint32_t> generation;  // even: steady
  std::atomic<uint32_t> tag_mask;    // the bits of a mark that are a tag
  std::atomic<uint32_t> used;        // slots; at most kMostLatchSlots
  uint32_t reserved;
  LatchSlot slots[kLatchSlots];
};
static_assert(offsetof(LatchTable, slots) == 16);

// Kind and flags below 16. `family`: AF_INET, AF_INET6, 0. `port` 0: any. `tag`: of the mark, in
// its place; kTag.
constexpr uint64_t WhatOf(LatchSlotKind kind, uint8_t flags, uint16_t family, uint16_t port,
                          uint32_t tag) {
  return uint64_t{tag} << 32 | (uint64_t{static_cast<uint8_t>(kind)} & 0xf) << 28 |
         (uint64_t{flags} & 0xf) << 24 | (uint64_t{family} & 0xff) << 16 | port;
}
constexpr uint32_t TagOf(uint64_t what) { return static_cast<uint32_t>(what >> 32); }
constexpr LatchSlotKind KindOf(uint64_t what) {
  return static_cast<LatchSlotKind>(what >> 28 & 0xf);
}
constexpr uint8_t FlagsOf(uint64_t what) { return static_cast<uint8_t>(what >> 24 & 0xf); }
constexpr uint16_t FamilyOf(uint64_t what) { return static_cast<uint16_t>(what >> 16 & 0xff); }
constexpr uint16_t PortOf(uint64_t what) { return static_cast<uint16_t>(what & 0xffff); }

constexpr bool KeepsAll(uint64_t what, LatchSlotKind kind, uint8_t flags, uint16_t family,
                        uint16_t port, uint32_t tag) {
  return KindOf(what) == kind && FlagsOf(what) == flags && FamilyOf(what) == family &&
         PortOf(what) == port && TagOf(what) == tag;
}
static_assert(KeepsAll(WhatOf(LatchSlotKind::kLatch, 15, 10, 65535, 0xffffffff),
                       LatchSlotKind::kLatch, 15, 10, 65535, 0xffffffff));
static_assert(KeepsAll(WhatOf(LatchSlotKind::kTag, 0, 2, 1, 0x80000001), LatchSlotKind::kTag, 0, 2,
                       1, 0x80000001));

// Where a search begins: by the socket; by it, tag and port; or by the latch.
constexpr uint32_t PlaceOf(uint64_t key) {
  return static_cast<uint32_t>((key * 0x9e3779b97f4a7c15U) >> 40) & (kLatchSlots - 1);
}
constexpr uint32_t PlaceOfSocket(uint64_t cookie) { return PlaceOf(cookie); }
constexpr uint32_t PlaceOfTag(uint64_t cookie, uint32_t tag, uint16_t port) {
  return PlaceOf(cookie * 0xff51afd7ed558ccdU ^ (uint64_t{tag} << 16 | port));
}
constexpr uint32_t PlaceOfLatch(uint64_t latch) { return PlaceOf(~latch); }

}  // namespace latchkey::wire

#endif  // SHIM_WIRE_LATCH_TABLE_H_
