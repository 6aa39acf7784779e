// What the fence's programs and the broker share: keys, values and sizes of their maps.
//
// Plain C, for the programs are compiled for BPF. Addresses are octets in network order, v4 in the
// first four and the rest zero, never v4-mapped; other numbers are in the host's order. A change
// here that another broker's maps must not survive shows in a size, or in LATCHKEY_FENCE_LAYOUT.
#ifndef TOOLS_LATCHKEYD_KERNEL_FENCE_LAYOUT_H_
#define TOOLS_LATCHKEYD_KERNEL_FENCE_LAYOUT_H_

#include <linux/types.h>

enum { LATCHKEY_FENCE_LAYOUT = 3 };

enum {
  LATCHKEY_MOST_FENCES = 65536,
  LATCHKEY_FENCE_RULES = 256,
  LATCHKEY_FENCE_PATH = 1024,  // of a cgroup, below the root, with its NUL
};

enum {
  LATCHKEY_FAMILY_V4 = 4,
  LATCHKEY_FAMILY_V6 = 6,
};

struct latchkey_place {
  __u32 address[4];
  __u16 family;
  __u16 port;
};

// What was decided about a socket. Children of a listener begin with its.
enum {
  LATCHKEY_DECIDED_FLOW = 1,     // for this place alone
  LATCHKEY_DECIDED_PASSIVE = 2,  // a listener, or its child: whoever comes; it begins nothing
  LATCHKEY_DECIDED_HELD = 3,     // the kernel holds it to its latches, wherever to
  LATCHKEY_DECIDED_CLEAR = 4,    // without a connection, by the rules; and for this place
  LATCHKEY_DECIDED_LATCHED = 5,  // UDP, connected: held to its latch; with a place, it goes there
                                 // in clear
  LATCHKEY_DECIDED_HOST = 6,     // for this place alone, and within the host
};

struct latchkey_decision {
  __u32 kind;
  struct latchkey_place place;
  __u32 device;  // _HOST: by which it goes, loopback apart
};

// One rule with one remote prefix; the first that matches counts.
struct latchkey_fence_rule {
  __u32 address[4];
  __u32 mask[4];   // bits of `address` that count; of the others it has none
  __u32 port_low;  // inclusive
  __u32 port_high;
  __u16 family;
  __u16 family_mask;  // 0: both
  __u8 protocol;
  __u8 protocol_mask;  // 0: all
  __u8 settle;         // LATCHKEY_RULE_…
  __u8 stops;          // 1: it is no bypass
};

enum {
  LATCHKEY_RULE_ASK = 0,
  LATCHKEY_RULE_BYPASS = 1,
  LATCHKEY_RULE_DISCARD = 2,
  LATCHKEY_RULE_PROTECT = 3,
};

enum {
  LATCHKEY_FENCE_OPEN = 1,      // there is nothing to latch or to refuse
  LATCHKEY_FENCE_DENY = 2,      // what no rule covers is discarded
  LATCHKEY_FENCE_INCOMING = 4,  // a rule is about datagrams that come in
  LATCHKEY_FENCE_BYPASS = 8,    // no rule does anything but bypass
  LATCHKEY_FENCE_LISTEN = 16,   // no rule is about connections that come in
  LATCHKEY_FENCE_APART = 32,    // its programs look into another broker's regions of held sockets
};

// By fence. One without a policy lets nothing pass that is not decided.
struct latchkey_fence_policy {
  __u32 flags;
  __u32 otherwise;  // LATCHKEY_RULE_…
  __u32 count;
  __u32 reserved;
  struct latchkey_fence_rule rules[LATCHKEY_FENCE_RULES];
};

// What was refused or dropped.
enum {
  LATCHKEY_STOPPED_CONNECT = 0,
  LATCHKEY_STOPPED_SEND = 1,
  LATCHKEY_STOPPED_SOCKET = 2,  // its port is the type, address[0] is none
  LATCHKEY_STOPPED_OUT = 3,
  LATCHKEY_STOPPED_IN = 4,
  LATCHKEY_STOPPED_KINDS = 5,
};

struct latchkey_stopped {
  __u64 count;
  struct latchkey_place place;  // of the last
  __u32 protocol;
};

struct latchkey_stops {
  struct latchkey_stopped of[LATCHKEY_STOPPED_KINDS];
};

struct latchkey_fence_path {
  char text[LATCHKEY_FENCE_PATH];
  __u32 held;  // the kernel's number of the map of held sockets that its programs look into
};

#endif  // TOOLS_LATCHKEYD_KERNEL_FENCE_LAYOUT_H_
