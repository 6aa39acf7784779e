// The fence around a program's cgroup: what was not decided neither begins, nor leaves, nor comes
// in.
//
// Of a socket the kernel knows the cgroup in which it was made, for life, and runs these programs
// for all that it does, by whatever call (libc, raw, io_uring). A decision is noted on the socket
// itself by the broker, by its descriptor; what the policy bypasses needs none, as the shim asks
// for none there: the programs find it in the rules and note it when it connects. Everything else
// is stopped. After the transformation of XFRM an outgoing packet is ESP: then the socket's own
// destination counts, or, without a connection, what the hook of sendmsg has said.
//
// What a held UDP socket sends meets its SPD entries only by its mark, and none of them where
// something gives the packet another one (a firewall's rule, control data of its program) or the
// interface does without XFRM (disable_xfrm). So what leaves is looked at: a datagram in clear only
// goes where the datagram filter would let one come in from, which is wherever the broker let the
// socket send to in clear. The kernel runs the hook before it cuts a datagram into fragments.

#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "tools/latchkeyd/kernel/fence_layout.h"
#include "tools/latchkeyd/kernel/held_regions.bpf.h"

#define STOP 0
#define PASS 1

#define AF_INET 2
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define V4_MAPPED 0x0000ffff
#define LOOPBACK_V4 0x7f000001

// Headers before the transport's, IPv6.
#define NEXT_HOP_OPTIONS 0
#define NEXT_ROUTING 43
#define NEXT_OPTIONS 60

// Which fence a cgroup's is: it is in a map of the cgroup's, where nothing is 0.
struct {
  __uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
  __type(key, __u64);
  __type(value, __u64);
} fences SEC(".maps");

// The decisions, by socket.
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
  __type(key, int);
  __type(value, struct latchkey_decision);
} decided SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_FENCES);
  __type(key, __u64);
  __type(value, struct latchkey_fence_policy);
} policies SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_FENCES);
  __type(key, __u64);
  __type(value, struct latchkey_stops);
} stops SEC(".maps");

// Not for the programs: where the cgroups are, for the broker that comes after.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, LATCHKEY_MOST_FENCES);
  __type(key, __u64);
  __type(value, struct latchkey_fence_path);
} paths SEC(".maps");

struct question {
  struct latchkey_place place;
  __u32 protocol;
  bool loose;     // UDP without a connection
  bool listens;   // TCP without one
  bool incoming;  // it comes in
  bool clear;     // the broker was asked, and said that it is no latch's
};

static __always_inline __u64 this_fence(void) {
  const __u64* id = bpf_get_local_storage(&fences, 0);
  return *id;
}

static __always_inline bool is_same(const struct latchkey_place* a,
                                    const struct latchkey_place* b) {
  return a->port == b->port && a->family == b->family && a->address[0] == b->address[0] &&
         a->address[1] == b->address[1] && a->address[2] == b->address[2] &&
         a->address[3] == b->address[3];
}

static __always_inline void set_v6(struct latchkey_place* place, __u32 a, __u32 b, __u32 c,
                                   __u32 d) {
  const bool mapped = a == 0 && b == 0 && c == bpf_htonl(V4_MAPPED);
  place->family = mapped ? LATCHKEY_FAMILY_V4 : LATCHKEY_FAMILY_V6;
  place->address[0] = mapped ? d : a;
  place->address[1] = mapped ? 0 : b;
  place->address[2] = mapped ? 0 : c;
  place->address[3] = mapped ? 0 : d;
}

// What the first rule that matches says. A function of its own for the verifier, and of one branch
// a rule: else it looks at each way through all rules, for seconds. (No callback of bpf_loop: that
// takes a kernel that compiles.)
__noinline __u32 settle(struct latchkey_fence_policy* policy, struct question* asked) {
  if (policy == NULL || asked == NULL) return LATCHKEY_RULE_PROTECT;
  const __u32 port = asked->place.port;
  const __u32 family = asked->place.family;
  const __u32 protocol = asked->protocol;
  const __u32 a = asked->place.address[0];
  const __u32 b = asked->place.address[1];
  const __u32 c = asked->place.address[2];
  const __u32 d = asked->place.address[3];
  // Of what is neither TCP nor UDP no rule for one of them is certain to say anything: it passes
  // where none for either stands in the way.
  const __u32 other = protocol != IPPROTO_TCP && protocol != IPPROTO_UDP;
  __u32 count = policy->count;
  if (count > LATCHKEY_FENCE_RULES) count = LATCHKEY_FENCE_RULES;
  for (__u32 i = 0; i < count; ++i) {
    const struct latchkey_fence_rule* rule = &policy->rules[i];
    __u32 misses =
        ((a ^ rule->address[0]) & rule->mask[0]) | ((b ^ rule->address[1]) & rule->mask[1]) |
        ((c ^ rule->address[2]) & rule->mask[2]) | ((d ^ rule->address[3]) & rule->mask[3]);
    misses |= (family ^ rule->family) & rule->family_mask;
    misses |= (port - rule->port_low) >> 31 | (rule->port_high - port) >> 31;
    misses |= (protocol ^ rule->protocol) & rule->protocol_mask & ((other & rule->stops) - 1);
    if (misses == 0) return rule->settle;
  }
  return policy->otherwise;
}

// True where the policy lets it pass without a decision.
static __noinline bool is_free(__u64 fence, struct question* asked) {
  struct latchkey_fence_policy* policy = bpf_map_lookup_elem(&policies, &fence);
  if (policy == NULL) return false;
  if ((policy->flags & LATCHKEY_FENCE_OPEN) != 0) return true;
  // The rules are about what is begun here. Where none is about who comes, nobody needs to ask.
  if (asked->listens) return (policy->flags & LATCHKEY_FENCE_LISTEN) != 0;
  // Who is told of what comes in decides about it; it may be another's than the sender's rule says.
  const bool untold = asked->loose && !asked->clear;
  if (untold && asked->incoming && (policy->flags & LATCHKEY_FENCE_INCOMING) != 0) return false;
  switch (settle(policy, asked)) {
    case LATCHKEY_RULE_BYPASS:
      return true;
    case LATCHKEY_RULE_ASK:
      // The SPD asks for something there, and sees to it itself: no single datagram is asked about.
      return asked->loose && (asked->clear || (policy->flags & LATCHKEY_FENCE_DENY) == 0);
    default:
      return false;
  }
}

static __always_inline int stop(__u64 fence, __u32 kind, const struct question* asked) {
  struct latchkey_stops* all = bpf_map_lookup_elem(&stops, &fence);
  if (all == NULL || kind >= LATCHKEY_STOPPED_KINDS) return STOP;
  struct latchkey_stopped* one = &all->of[kind];
  __sync_fetch_and_add(&one->count, 1);
  one->place = asked->place;
  one->protocol = asked->protocol;
  return STOP;
}

static __always_inline void note(struct bpf_sock* sk, struct latchkey_decision* decision,
                                 __u32 kind, const struct latchkey_place* place) {
  struct latchkey_decision fresh = {};
  fresh.kind = kind;
  fresh.place = *place;
  if (decision != NULL) {
    *decision = fresh;
  } else {
    bpf_sk_storage_get(&decided, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
  }
}

// Wherever it connects or sends to, the kernel has the word.
static __always_inline bool is_kernels(const struct latchkey_decision* decision) {
  return decision->kind == LATCHKEY_DECIDED_HELD || decision->kind == LATCHKEY_DECIDED_LATCHED;
}

static __always_inline bool is_flow(const struct latchkey_decision* decision) {
  return decision->kind == LATCHKEY_DECIDED_FLOW || decision->kind == LATCHKEY_DECIDED_HOST;
}

static __always_inline int judge_connect(struct bpf_sock* sk, struct question* asked) {
  struct latchkey_decision* decision = bpf_sk_storage_get(&decided, sk, NULL, 0);
  if (decision != NULL &&
      (is_kernels(decision) || (is_flow(decision) && is_same(&decision->place, &asked->place)))) {
    return PASS;
  }
  const __u64 fence = this_fence();
  if (is_free(fence, asked)) {
    note(sk, decision, LATCHKEY_DECIDED_FLOW, &asked->place);
    return PASS;
  }
  // A UDP socket's sends nothing, and what follows is judged: libc connects ones that it never
  // sends with, to put addresses in order.
  if (asked->protocol == IPPROTO_UDP) return PASS;
  return stop(fence, LATCHKEY_STOPPED_CONNECT, asked);
}

static __always_inline int judge_send(struct bpf_sock* sk, struct question* asked) {
  const struct latchkey_decision* decision = bpf_sk_storage_get(&decided, sk, NULL, 0);
  asked->loose = true;
  if (decision != NULL) {
    if (is_kernels(decision)) return PASS;
    asked->clear = decision->kind == LATCHKEY_DECIDED_CLEAR;
    const bool placed = asked->clear || is_flow(decision);
    if (placed && is_same(&decision->place, &asked->place)) return PASS;
  }
  const __u64 fence = this_fence();
  return is_free(fence, asked) ? PASS : stop(fence, LATCHKEY_STOPPED_SEND, asked);
}

// To "any" the kernel takes as to loopback, after these hooks: of a socket bound to an address of
// its own as to that, which its packets then say.
static __always_inline void settle_any(struct latchkey_place* place) {
  if ((place->address[0] | place->address[1] | place->address[2] | place->address[3]) != 0) return;
  if (place->family == LATCHKEY_FAMILY_V4) {
    place->address[0] = bpf_htonl(LOOPBACK_V4);
  } else {
    place->address[3] = bpf_htonl(1);
  }
}

static __always_inline void read_v4(struct bpf_sock_addr* context, struct question* asked) {
  asked->place.family = LATCHKEY_FAMILY_V4;
  asked->place.address[0] = context->user_ip4;
  settle_any(&asked->place);
  asked->place.port = bpf_ntohs(context->user_port);
  asked->protocol = context->protocol;
}

static __always_inline void read_v6(struct bpf_sock_addr* context, struct question* asked) {
  set_v6(&asked->place, context->user_ip6[0], context->user_ip6[1], context->user_ip6[2],
         context->user_ip6[3]);
  settle_any(&asked->place);
  asked->place.port = bpf_ntohs(context->user_port);
  asked->protocol = context->protocol;
}

SEC("cgroup/connect4")
int fence_connect4(struct bpf_sock_addr* context) {
  struct question asked = {};
  struct bpf_sock* sk = context->sk;
  if (sk == NULL) return STOP;
  read_v4(context, &asked);
  return judge_connect(sk, &asked);
}

SEC("cgroup/connect6")
int fence_connect6(struct bpf_sock_addr* context) {
  struct question asked = {};
  struct bpf_sock* sk = context->sk;
  if (sk == NULL) return STOP;
  read_v6(context, &asked);
  return judge_connect(sk, &asked);
}

SEC("cgroup/sendmsg4")
int fence_sendmsg4(struct bpf_sock_addr* context) {
  struct question asked = {};
  struct bpf_sock* sk = context->sk;
  if (sk == NULL) return STOP;
  read_v4(context, &asked);
  return judge_send(sk, &asked);
}

SEC("cgroup/sendmsg6")
int fence_sendmsg6(struct bpf_sock_addr* context) {
  struct question asked = {};
  struct bpf_sock* sk = context->sk;
  if (sk == NULL) return STOP;
  read_v6(context, &asked);
  return judge_send(sk, &asked);
}

// True where nothing that a program begins is anything but bypassed, of whatever kind it is.
static __always_inline bool refuses_nothing(__u64 fence) {
  const struct latchkey_fence_policy* policy = bpf_map_lookup_elem(&policies, &fence);
  const __u32 free = LATCHKEY_FENCE_OPEN | LATCHKEY_FENCE_BYPASS;
  return policy != NULL && (policy->flags & free) != 0;
}

SEC("cgroup/sock_create")
int fence_sock_create(struct bpf_sock* sk) {
  const __u32 protocol = sk->protocol;
  const __u32 type = sk->type;
  if (type == SOCK_STREAM && protocol == IPPROTO_TCP) return PASS;
  if (type == SOCK_DGRAM && (protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP ||
                             protocol == 58 /* IPPROTO_ICMPV6 */)) {
    return PASS;
  }
  const __u64 fence = this_fence();
  if (refuses_nothing(fence)) return PASS;
  struct question asked = {};
  asked.protocol = protocol;
  asked.place.family = sk->family == AF_INET ? LATCHKEY_FAMILY_V4 : LATCHKEY_FAMILY_V6;
  return stop(fence, LATCHKEY_STOPPED_SOCKET, &asked);
}

static __always_inline void read_socket(struct bpf_sock* sk, struct latchkey_place* place) {
  place->port = bpf_ntohs(sk->dst_port);
  if (sk->family == AF_INET) {
    place->family = LATCHKEY_FAMILY_V4;
    place->address[0] = sk->dst_ip4;
    return;
  }
  set_v6(place, sk->dst_ip6[0], sk->dst_ip6[1], sk->dst_ip6[2], sk->dst_ip6[3]);
}

// The other end, as the packet says. False for one that is not of the socket's own protocol (ESP),
// or has headers between.
static __always_inline bool read_packet(struct __sk_buff* skb, bool incoming, __u32 protocol,
                                        struct latchkey_place* place) {
  __u8 first;
  __u8 next;
  __be16 port = 0;
  __u32 header;
  if (bpf_skb_load_bytes(skb, 0, &first, 1) != 0) return false;
  if (first >> 4 == 4) {
    header = (first & 15) * 4;
    place->family = LATCHKEY_FAMILY_V4;
    if (bpf_skb_load_bytes(skb, 9, &next, 1) != 0 ||
        bpf_skb_load_bytes(skb, incoming ? 12 : 16, place->address, 4) != 0) {
      return false;
    }
  } else if (first >> 4 == 6) {
    __u32 words[4];
    header = 40;
    if (bpf_skb_load_bytes(skb, 6, &next, 1) != 0 ||
        bpf_skb_load_bytes(skb, incoming ? 8 : 24, words, 16) != 0) {
      return false;
    }
    set_v6(place, words[0], words[1], words[2], words[3]);
  } else {
    return false;
  }
  if (next != protocol) return false;
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) return true;
  if (bpf_skb_load_bytes(skb, header + (incoming ? 0 : 2), &port, 2) != 0) return false;
  place->port = bpf_ntohs(port);
  return true;
}

// Where the transport header of an outgoing packet begins, and which it is. False for one that is
// no whole packet of IP.
static __always_inline bool find_header(struct __sk_buff* skb, __u32* at, __u8* next) {
  __u8 begin[10];
  if (bpf_skb_load_bytes(skb, 0, begin, sizeof(begin)) != 0) return false;
  if (begin[0] >> 4 == 4) {
    *at = (begin[0] & 15) * 4;
    *next = begin[9];
    return true;
  }
  if (begin[0] >> 4 != 6) return false;
  *at = 40;
  *next = begin[6];
  // Options for each hop, for those on the way, the way, options for the end: then comes ESP too.
  for (int i = 0; i < 4; ++i) {
    __u8 option[2];
    if (*next != NEXT_HOP_OPTIONS && *next != NEXT_ROUTING && *next != NEXT_OPTIONS) break;
    if (bpf_skb_load_bytes(skb, *at, option, sizeof(option)) != 0) return false;
    *next = option[0];
    *at += (option[1] + 1) * 8;
  }
  return true;
}

// Of a held socket, or with `latched` of a connected one: true where what leaves would do so in
// clear and must not. `asked` then says where it would go.
static __noinline bool leaks(struct __sk_buff* skb, struct question* asked, bool latched) {
  __u32 at = 0;
  __u8 next = 0;
  __be16 ports[2] = {};
  struct bpf_sock* sk = skb->sk;
  if (sk == NULL || asked == NULL || !find_header(skb, &at, &next)) return true;
  if (next != IPPROTO_UDP) return false;  // ESP
  if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports)) != 0) return true;
  // ESP in UDP is from the port of the SA.
  if (bpf_ntohs(ports[0]) != sk->src_port) return false;
  // Within the host nothing is ever protected.
  if (skb->ifindex == LATCHKEY_LOOPBACK) return false;
  struct source to = {};
  __u8 first = 0;
  if (bpf_skb_load_bytes(skb, 0, &first, 1) != 0) return true;
  const bool v4 = first >> 4 == 4;
  to.port = bpf_ntohs(ports[1]);
  to.family = v4 ? LATCHKEY_V4 : LATCHKEY_V6;
  if ((v4 ? bpf_skb_load_bytes(skb, 16, to.address, 4)
          : bpf_skb_load_bytes(skb, 24, to.address, 16)) != 0) {
    return true;
  }
  asked->protocol = IPPROTO_UDP;
  asked->place.family = v4 ? LATCHKEY_FAMILY_V4 : LATCHKEY_FAMILY_V6;
  asked->place.port = to.port;
  __builtin_memcpy(asked->place.address, to.address, sizeof(to.address));
  if (latched) return true;
  const __u64 cookie = bpf_get_socket_cookie(skb);
  const struct latchkey_held* socket = bpf_map_lookup_elem(&held, &cookie);
  if (socket == NULL) return true;
  return (need_of(cookie, socket->generation, &to) & ~LATCHKEY_SAME_HOST) != LATCHKEY_PASS;
}

// True where a fence's programs cannot know what the broker of now lets held sockets do.
static __always_inline bool is_apart(__u64 fence) {
  const struct latchkey_fence_policy* policy = bpf_map_lookup_elem(&policies, &fence);
  return policy != NULL && (policy->flags & LATCHKEY_FENCE_APART) != 0;
}

// True where a packet from or to `place` is what was decided about its socket. What was to stay
// within the host leaves it when its address has moved on, or is translated.
static __always_inline bool is_decided(struct __sk_buff* skb, bool incoming,
                                       const struct latchkey_decision* decision,
                                       const struct latchkey_place* place) {
  if (!is_same(&decision->place, place)) return false;
  if (incoming || decision->kind != LATCHKEY_DECIDED_HOST) return true;
  return skb->ifindex == LATCHKEY_LOOPBACK || skb->ifindex == decision->device;
}

static __always_inline int judge_packet(struct __sk_buff* skb, bool incoming) {
  struct question asked = {};
  struct bpf_sock* sk = skb->sk;
  if (sk == NULL) return STOP;
  // What is decided first, by one helper's call: most packets are of such a socket.
  struct latchkey_decision* decision = bpf_sk_storage_get(&decided, sk, NULL, 0);
  const bool connected = sk->dst_port != 0;
  if (connected) read_socket(sk, &asked.place);
  if (decision != NULL) {
    const __u32 kind = decision->kind;
    if (kind == LATCHKEY_DECIDED_PASSIVE) return PASS;
    if (is_kernels(decision)) {
      const bool latched = kind == LATCHKEY_DECIDED_LATCHED;
      if (incoming || !leaks(skb, &asked, latched)) return PASS;
      if (latched && is_same(&decision->place, &asked.place)) return PASS;
      const __u64 around = this_fence();
      return is_apart(around) ? PASS : stop(around, LATCHKEY_STOPPED_OUT, &asked);
    }
    if (connected && is_decided(skb, incoming, decision, &asked.place)) return PASS;
  }
  sk = bpf_sk_fullsock(sk);
  if (sk == NULL) return STOP;
  const __u64 fence = this_fence();
  asked.protocol = sk->protocol;
  asked.incoming = incoming;
  asked.loose = !connected && asked.protocol == IPPROTO_UDP;
  asked.listens = !connected && asked.protocol == IPPROTO_TCP;
  if (!connected && !read_packet(skb, incoming, asked.protocol, &asked.place)) {
    if (asked.loose && !incoming) return PASS;
    // A raw socket's; a listener is asked about, whatever stands in a packet before its header.
    const bool other = asked.protocol != IPPROTO_TCP && asked.protocol != IPPROTO_UDP;
    if (other && refuses_nothing(fence)) return PASS;
    return stop(fence, incoming ? LATCHKEY_STOPPED_IN : LATCHKEY_STOPPED_OUT, &asked);
  }
  if (decision != NULL) {
    if (is_decided(skb, incoming, decision, &asked.place)) return PASS;
    asked.clear = decision->kind == LATCHKEY_DECIDED_CLEAR;
    // No rule is about what comes to it: the broker would hold it.
    if (asked.loose && asked.clear && incoming) return PASS;
  }
  if (is_free(fence, &asked)) {
    // Its children are taken for what it is, whatever becomes of the rules.
    if (asked.listens && incoming) note(sk, decision, LATCHKEY_DECIDED_PASSIVE, &asked.place);
    return PASS;
  }
  return stop(fence, incoming ? LATCHKEY_STOPPED_IN : LATCHKEY_STOPPED_OUT, &asked);
}

SEC("cgroup_skb/egress")
int fence_egress(struct __sk_buff* skb) { return judge_packet(skb, false); }

SEC("cgroup_skb/ingress")
int fence_ingress(struct __sk_buff* skb) { return judge_packet(skb, true); }

const char program_license[] SEC("license") = "Apache-2.0";
