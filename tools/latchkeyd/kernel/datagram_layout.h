// What the datagram filter's program and the broker share: keys, values and sizes of its maps.
//
// Plain C, for the program is compiled for BPF. Addresses are octets in network order, v4 in the
// first four and the rest zero; other numbers are in the host's order. A change here that another
// broker's maps must not survive shows in a size, or in LATCHKEY_LAYOUT.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_LAYOUT_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_LAYOUT_H_

#include <linux/types.h>

enum { LATCHKEY_LAYOUT = 4 };

// The most that each map holds, for all sockets of a network namespace.
enum {
  LATCHKEY_MOST_SOCKETS = 65536,
  LATCHKEY_MOST_ADMISSIONS = 262144,
  LATCHKEY_MOST_EXACT = 65536,
  LATCHKEY_MOST_REGIONS = 65536,
};

struct latchkey_settings {
  __u32 tag_mask;  // bits of the mark that are a tag
};

// By cookie. A socket without one takes in only what it was admitted.
struct latchkey_held {
  __u32 generation;  // of its regions: others do not count
};

struct latchkey_admitted_key {
  __u64 cookie;
  __u32 tag;
  __u16 port;  // 0: any
  __u16 family;
  __u8 address[16];
};

// One of the admissions again, where the program finds it without a search: at the place that its
// tag says, if no other has it. What is written is whole only while `turn` is even and stays what
// it was; an empty one is all zeros, and of no cookie.
struct latchkey_slot {
  __u64 turn;
  struct latchkey_admitted_key admission;
};
enum { LATCHKEY_SLOT_BITS = 15, LATCHKEY_SLOTS = 1 << LATCHKEY_SLOT_BITS };

// Which slot is a tag's. Tags lie anywhere in the mark; those that follow each other do not meet.
static inline __u32 latchkey_slot_of(__u32 tag) {
  return (tag * 0x9e3779b1U) >> (32 - LATCHKEY_SLOT_BITS);
}

struct latchkey_exact_key {
  __u64 cookie;
  __u32 generation;
  __u16 port;
  __u16 family;
  __u8 address[16];
};

// Of an LPM trie: what comes before the address must be equal whole.
struct latchkey_region_key {
  __u32 prefix_bits;  // LATCHKEY_REGION_BITS and the prefix length
  __u32 generation;
  __u64 cookie;
  __u32 family;
  __u8 address[16];
  __u32 padding;
};
enum { LATCHKEY_REGION_BITS = 128 };

enum {
  LATCHKEY_V4 = 4,
  LATCHKEY_V6 = 6,
};

// What regions say, exact or not.
enum {
  LATCHKEY_PASS = 1,
  LATCHKEY_TAG = 2,
  LATCHKEY_DROP = 3,
};

// Added to a value: what the loopback device brings comes in. Nothing but this host sends by that.
enum {
  LATCHKEY_SAME_HOST = 16,
  LATCHKEY_LOOPBACK = 1,  // its number: LOOPBACK_IFINDEX in linux/netdevice.h
};

enum { LATCHKEY_MOST_BUT = 7 };

// Both ends belong to it. Of none, not even port 0: low above high.
struct latchkey_ports {
  __u16 low;
  __u16 high;
};

// Value of a region that is not exact. From these ports comes in what is admitted, as by
// LATCHKEY_TAG, whatever is said of the others.
struct latchkey_region {
  __u32 need;
  struct latchkey_ports but[LATCHKEY_MOST_BUT];
};

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_LAYOUT_H_
