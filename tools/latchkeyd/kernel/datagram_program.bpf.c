// The filter on a held UDP socket: what may not come in is dropped before it is queued.
//
// A socket filter of eBPF. The kernel runs it for every datagram after the socket's XFRM policy and
// before the receive queue (sk_filter_trim_cap in net/core/filter.c, called by net/ipv4/udp.c and
// net/ipv6/udp.c), so that what it drops wakes nobody and can be read by no call. The data begin at
// the UDP header there, the network header is before them. skb->mark is what the SA's set-mark made
// of it (net/xfrm/xfrm_input.c); of what came in clear it is 0 in the bits of the tags, or what a
// firewall made of it. What has the tag of another SA than it came under does not get here: for
// each tag that is admitted the SPD has an entry against that (TagProof() in latch/held.h).
//
// What an admitted peer sends is the case that counts: it takes one read of the packet, and no
// search where the tag's slot has it. Each call of the kernel's costs 30 to 65 ns (tests/bench); a
// look into an array is none.

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "tools/latchkeyd/kernel/datagram_layout.h"
#include "tools/latchkeyd/kernel/held_regions.bpf.h"

#define DROP 0
#define PASS 0x7fffffff  // so many octets are kept

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct latchkey_settings);
} settings SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_ADMISSIONS);
  __type(key, struct latchkey_admitted_key);
  __type(value, __u32);
} admitted SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, LATCHKEY_SLOTS);
  __type(key, __u32);
  __type(value, struct latchkey_slot);
} slots SEC(".maps");

// Datagrams dropped, by cookie.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_SOCKETS);
  __type(key, __u64);
  __type(value, __u64);
} dropped SEC(".maps");

// Not for the program: the broker notes on a socket that it has a filter of these maps, as long as
// the socket lives.
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, __u32);
} noted SEC(".maps");

// A datagram of either family has so many octets from its network header on, in one piece, and both
// kinds of source address are among them.
struct beginning {
  __u8 before[8];
  __u8 v6[4];
  __u8 v4[4];  // of v6 too
  __u8 v6_rest[8];
};

static __always_inline bool read_address(struct __sk_buff *skb, struct source *source) {
  struct beginning begin;
  if (bpf_skb_load_bytes_relative(skb, 0, &begin, sizeof(begin), BPF_HDR_START_NET) != 0) {
    return false;
  }
  if (begin.before[0] >> 4 == 4) {
    source->family = LATCHKEY_V4;
    __builtin_memcpy(source->address, begin.v4, sizeof(begin.v4));
  } else if (begin.before[0] >> 4 == 6) {
    source->family = LATCHKEY_V6;
    __builtin_memcpy(source->address, begin.v6, sizeof(source->address));
  } else {
    return false;
  }
  return true;
}

static __always_inline bool read_port(struct __sk_buff *skb, struct source *source) {
  __be16 port;
  if (bpf_skb_load_bytes(skb, 0, &port, sizeof(port)) != 0) return false;
  source->port = bpf_ntohs(port);
  return true;
}

static __always_inline __u32 tag_of(const struct __sk_buff *skb) {
  const __u32 zero = 0;
  const struct latchkey_settings *all = bpf_map_lookup_elem(&settings, &zero);
  return all != NULL ? skb->mark & all->tag_mask : 0;
}

static __always_inline struct latchkey_admitted_key admission_of(__u64 cookie, __u32 tag,
                                                                 const struct source *source) {
  struct latchkey_admitted_key key = {};
  key.cookie = cookie;
  key.tag = tag;
  key.port = source->port;
  key.family = source->family;
  __builtin_memcpy(key.address, source->address, sizeof(key.address));
  return key;
}

// Reads before, in between and after in this order, as the broker writes: x86 keeps to it, and
// elsewhere the broker fills no slots (datagram_slots.cc).
static __always_inline bool is_in_slot(const struct latchkey_admitted_key *key) {
  const __u32 index = latchkey_slot_of(key->tag);
  const volatile struct latchkey_slot *slot = bpf_map_lookup_elem(&slots, &index);
  if (slot == NULL) return false;
  const __u64 turn = slot->turn;
  const volatile __u64 *there = (const volatile __u64 *)&slot->admission;
  __u64 wanted[4];
  _Static_assert(sizeof(wanted) == sizeof(*key), "compared whole");
  __builtin_memcpy(wanted, key, sizeof(wanted));
  const __u64 differs = (there[0] ^ wanted[0]) | (there[1] ^ wanted[1]) | (there[2] ^ wanted[2]) |
                        (there[3] ^ wanted[3]);
  return differs == 0 && (turn & 1) == 0 && slot->turn == turn;
}

static __always_inline bool is_admitted(const struct latchkey_admitted_key *key) {
  return bpf_map_lookup_elem(&admitted, key) != NULL;
}

static __always_inline bool may_come_in(struct __sk_buff *skb, __u64 cookie) {
  struct source source = {};
  const __u32 tag = tag_of(skb);
  // Several as one, merged by GRO as if all came under the first one's SA: only for a program that
  // asked for it past the shim.
  if (tag != 0 && skb->gso_size != 0) return false;
  if (!read_address(skb, &source)) return false;
  struct latchkey_admitted_key key = admission_of(cookie, tag, &source);
  if (tag != 0 && (is_in_slot(&key) || is_admitted(&key))) return true;
  const struct latchkey_held *socket = bpf_map_lookup_elem(&held, &cookie);
  if (socket == NULL || !read_port(skb, &source)) return false;
  key.port = source.port;
  if (tag != 0 && is_admitted(&key)) return true;
  const __u32 need = need_of(cookie, socket->generation, &source);
  if ((need & LATCHKEY_SAME_HOST) != 0 && skb->ifindex == LATCHKEY_LOOPBACK) return true;
  return (need & ~LATCHKEY_SAME_HOST) == LATCHKEY_PASS;
}

SEC("socket")
int latchkey_filter(struct __sk_buff *skb) {
  __u64 cookie = bpf_get_socket_cookie(skb);
  if (may_come_in(skb, cookie)) return PASS;
  __u64 *count = bpf_map_lookup_elem(&dropped, &cookie);
  if (count != NULL) __sync_fetch_and_add(count, 1);
  return DROP;
}

const char program_license[] SEC("license") = "Apache-2.0";
