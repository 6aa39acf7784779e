// The session's shared page: what the shim may know without asking.
//
// The broker writes it, every process of the session maps it read-only. It holds three things: the
// policy compiled to what the shim may settle alone (bypass and discard; everything else is asked),
// the latches of datagrams (latch_table.h), and the latches in trouble, so that a failed or ended
// call on a socket can be told as ECONNRESET. A latch in good order has no slot: data calls look
// here only when something already failed. Position-independent, plain data, no run-time library.
#ifndef SHIM_WIRE_PAGE_H_
#define SHIM_WIRE_PAGE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shim/wire/latch_table.h"
#include "shim/wire/messages.h"

namespace latchkey::wire {

inline constexpr uint32_t kPageMagic = 0x3247504b;  // "KPG2": another for another layout
inline constexpr uint32_t kPageRules = 256;
inline constexpr uint32_t kPageSlots = 8192;  // a power of two
inline constexpr uint32_t kPageExempt = 16;

enum class Settle : uint8_t {
  kAsk = 0,      // the broker decides
  kBypass = 1,   // go on without a latch
  kDiscard = 2,  // EACCES
  kProtect = 3,  // the broker decides; a rule protects, so no datagram goes there without a latch
};

// One outgoing rule with one remote prefix; the first that matches counts.
struct PageRule {
  uint8_t family;  // AF_INET (v4-mapped too), AF_INET6; 0 = both
  uint8_t prefix;  // bits of `remote` that count
  Settle settle;
  uint8_t protocol;   // IPPROTO_TCP, IPPROTO_UDP; 0 = both
  uint16_t port_low;  // remote port, host order, inclusive
  uint16_t port_high;
  uint8_t remote[16];  // v4 in the first four octets
};
static_assert(sizeof(PageRule) == 24);

enum class Trouble : uint32_t {
  kFree = 0,     // slot unused (cookie 0) or taken out again (cookie kept 0xff..)
  kBroken = 1,   // the latch is BROKEN: every call fails with ECONNRESET
  kNoSa = 2,     // nothing moves for want of an SA: failures and end of file are ECONNRESET
  kRefused = 3,  // a non-blocking connect that could not be latched: its errno is the reason's
};

// Found by linear probing from SlotOf(cookie); a slot with cookie 0 ends the search.
struct PageSlot {
  std::atomic<uint64_t> cookie;  // SO_COOKIE
  std::atomic<Trouble> trouble;
  std::atomic<uint32_t> reason;
};
static_assert(sizeof(PageSlot) == 16);

// Without a connection no datagram is sent and none taken in: the default is to discard.
inline constexpr uint32_t kPageDenyDatagrams = 1;
inline constexpr uint32_t kPageOverflow = 2;  // slots ran out: treat every failure as broken
inline constexpr uint32_t kPageNoRules = 4;   // nothing can be latched or refused here
inline constexpr uint32_t kPageRequests = 8;  // sockets with requests of their own exist
// Somewhere no datagram is to be sent without a connection; while the rules are rewritten, too.
inline constexpr uint32_t kPageDatagramRules = 16;
// A rule is about datagrams that come in: a UDP socket that is bound is to be held.
inline constexpr uint32_t kPageHold = 32;
// Some program of the session wants to be told of latches with datagrams.
inline constexpr uint32_t kPageLatches = 64;

struct Page {
  uint32_t magic;
  uint16_t version;
  uint16_t rule_count;
  std::atomic<uint32_t> generation;  // even: steady; odd: rules being rewritten, so ask
  std::atomic<uint32_t> flags;
  std::atomic<uint32_t> troubled;  // slots in use; 0 lets every failed call return at once
  Settle otherwise;                // when no rule matches
  uint8_t reserved[3];
  std::atomic<uint32_t> guard_mark;  // the bit in SO_MARK that says a socket is under a latch
  uint32_t reserved_too;
  PageRule rules[kPageRules];
  PageSlot slots[kPageSlots];
  // Programs whose exec may drop the shim: paths with a zero behind, an empty one ends the list.
  // Written before the page is handed out.
  char drop_preload[kPageExempt][kPathSize];
  LatchTable latches;
};
static_assert(offsetof(Page, rules) == 32);
static_assert(offsetof(Page, drop_preload) == 137248);
static_assert(offsetof(Page, latches) == 141344);

inline constexpr uint64_t kTombstone = ~uint64_t{0};

constexpr uint32_t SlotOf(uint64_t cookie) {
  return static_cast<uint32_t>((cookie * 0x9e3779b97f4a7c15U) >> 32) & (kPageSlots - 1);
}

}  // namespace latchkey::wire

#endif  // SHIM_WIRE_PAGE_H_
