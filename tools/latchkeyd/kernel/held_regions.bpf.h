// What unconnected UDP sockets may have to do with in clear: maps that the datagram filter has, and
// the fence looks into. For programs that have included <linux/bpf.h> and <bpf/bpf_helpers.h>.
#ifndef TOOLS_LATCHKEYD_KERNEL_HELD_REGIONS_BPF_H_
#define TOOLS_LATCHKEYD_KERNEL_HELD_REGIONS_BPF_H_

#include "tools/latchkeyd/kernel/datagram_layout.h"

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_SOCKETS);
  __type(key, __u64);
  __type(value, struct latchkey_held);
} held SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_EXACT);
  __type(key, struct latchkey_exact_key);
  __type(value, __u32);
} exact SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_REGIONS);
  __type(key, struct latchkey_region_key);
  __type(value, struct latchkey_region);
} regions SEC(".maps");

// Where a datagram comes from; or goes to.
struct source {
  __u16 family;
  __u16 port;
  __u8 address[16];
};

static __always_inline __u32 need_from(const struct latchkey_region* region, __u16 port) {
  for (int i = 0; i < LATCHKEY_MOST_BUT; ++i) {
    if (region->but[i].low <= port && port <= region->but[i].high) {
      return LATCHKEY_TAG | (region->need & LATCHKEY_SAME_HOST);
    }
  }
  return region->need;
}

static __always_inline __u32 need_of(__u64 cookie, __u32 generation, const struct source* source) {
  struct latchkey_exact_key one = {};
  one.cookie = cookie;
  one.generation = generation;
  one.port = source->port;
  one.family = source->family;
  __builtin_memcpy(one.address, source->address, sizeof(one.address));
  const __u32* need = bpf_map_lookup_elem(&exact, &one);
  if (need != NULL) return *need;
  struct latchkey_region_key many = {};
  many.prefix_bits = LATCHKEY_REGION_BITS + 128;
  many.generation = generation;
  many.cookie = cookie;
  many.family = source->family;
  __builtin_memcpy(many.address, source->address, sizeof(many.address));
  const struct latchkey_region* region = bpf_map_lookup_elem(&regions, &many);
  return region != NULL ? need_from(region, source->port) : LATCHKEY_DROP;
}

#endif  // TOOLS_LATCHKEYD_KERNEL_HELD_REGIONS_BPF_H_
