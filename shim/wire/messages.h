// The messages between shim, launcher and control program on one side and the broker on the other.
//
// One SOCK_SEQPACKET datagram is one message: a Header, then the body that its type fixes, nothing
// after it. All fields are in host order (both ends are on one host); sizes never vary; strings are
// NUL-padded and always end in a NUL. docs/PROTOCOL.md describes who may send what when. The shim
// includes this file: plain structs only, nothing that needs a run-time library.
#ifndef SHIM_WIRE_MESSAGES_H_
#define SHIM_WIRE_MESSAGES_H_

#include <cstddef>
#include <cstdint>

#include "shim/wire/reason.h"

namespace latchkey::wire {

inline constexpr uint32_t kMagic = 0x3159454b;  // "KEY1"
inline constexpr uint16_t kVersion = 1;
inline constexpr size_t kTokenSize = 32;
inline constexpr size_t kPathSize = 256;
inline constexpr size_t kIdSize = 256;
inline constexpr size_t kNameSize = 64;
inline constexpr size_t kTextSize = 1024;
inline constexpr size_t kMaxMessage = 4096;
inline constexpr int kMaxDescriptors = 3;

enum class Type : uint16_t {
  // Requests.
  kOpen = 1,    // launcher or hand-loaded shim: make a session. fds: policy [, signature] [, pidfd]
  kAttach = 2,  // a process of a session. fds: none
  kConnect = 3,       // fds: the socket
  kListen = 4,        // fds: the socket
  kAccept = 5,        // fds: the accepted child
  kRelease = 6,       // fds: the socket, before connect(AF_UNSPEC)
  kHold = 7,          // take an unconnected UDP socket under the rules. fds: the socket
  kPeer = 8,          // an unconnected UDP socket is to send to `remote`. fds: the socket
  kLatches = 9,       // what is to be told with a UDP socket's datagrams. fds: the socket
  kInquire = 12,      // the latch of this socket. fds: the socket
  kWish = 13,         // what its flow is to have, before connect or listen. fds: the socket
  kBinding = 14,      // the channel binding of its latch. fds: the socket
  kInquirePeer = 15,  // the latch `id` of a peer of this UDP socket. fds: the socket
  kList = 16,         // the first latch whose id is greater than `id`. fds: none
  kShow = 17,         // the latch with this id. fds: none
  kSpd = 18,          // the SPD entry at this place, from 0. Root's alone. fds: none
  kSa = 19,           // the SA at this place, from 0. Root's alone. fds: none
  kWhy = 20,          // the newest refusal or break whose number is below `id`. fds: none
  kBreak = 21,        // break the latch with this id. fds: none
  kResume = 22,       // end a suspension that kBreak began. fds: none
  kWatch = 23,        // from now on a kEvent for every change of a latch. fds: none
  kFence = 24,        // the first session whose id is greater than `id`. fds: none
  // Replies.
  kOpened = 65,
  kAttached = 66,  // fds: the session's page, read-only
  kDecision = 67,
  kLatch = 68,     // answer to kList, kShow, kInquire and kInquirePeer
  kSpdEntry = 69,  // answer to kSpd
  kSaEntry = 70,   // answer to kSa
  kIncident = 71,  // answer to kWhy
  kDone = 72,      // answer to kBreak, kResume and kWatch
  kEvent = 73,     // to who asked kWatch, with that request's serial
  kFenced = 74,    // answer to kFence
  kBound = 77,     // answer to kBinding
};

struct Header {
  uint32_t magic;
  uint16_t version;
  Type type;
  uint32_t size;    // of the whole message, this header included
  uint32_t serial;  // chosen by the requester, repeated in the reply
};
static_assert(sizeof(Header) == 16);

// A socket address. v4-mapped addresses stay AF_INET6 here; the broker unmaps them.
struct Endpoint {
  uint16_t family;  // AF_INET, AF_INET6; 0 = none
  uint16_t port;    // host order
  uint32_t scope;   // IPv6 scope id
  uint8_t address[16];
};
static_assert(sizeof(Endpoint) == 24);

inline constexpr uint32_t kOpenLauncher = 1;  // kill the process if its shim does not check in
inline constexpr uint32_t kOpenNoPolicy = 2;  // no policy descriptor follows
inline constexpr uint32_t kOpenSigned = 4;    // its signature file follows the policy
inline constexpr uint32_t kOpenFence = 8;     // with kOpenLauncher: a fence around the process
// With kOpenFence: its shim will not check in, so without the fence there is to be no session.
inline constexpr uint32_t kOpenUnlatched = 16;

struct Open {
  Header header;
  uint32_t flags;
  uint32_t reserved;
  char program[kPathSize];  // what will be exec'ed, absolute
  char policy[kPathSize];   // the policy file's name, for messages only
};
static_assert(sizeof(Open) == 24 + 2 * kPathSize);

struct Opened {
  Header header;
  Reason reason;    // kNone: a session was made
  uint16_t fenced;  // 1: a fence stands around the process
  uint16_t reserved[2];
  uint8_t token[kTokenSize];
  char text[kTextSize];  // why there is no session, or no fence, in words
};
static_assert(sizeof(Opened) == 24 + kTokenSize + kTextSize);

struct Attach {
  Header header;
  uint8_t token[kTokenSize];
};
static_assert(sizeof(Attach) == 48);

struct Attached {
  Header header;
  Reason reason;
  uint16_t reserved[3];
};
static_assert(sizeof(Attached) == 24);

inline constexpr uint32_t kRequestNonblocking = 1;  // the socket has O_NONBLOCK
inline constexpr uint32_t kRequestLatches = 2;      // kLatches: the latch of each (LATCHKEY_LATCH)
inline constexpr uint32_t kRequestMarks = 4;  // kLatches: their marks (SO_RCVMARK), by its own wish

// kConnect, kListen, kAccept, kRelease, kHold, kPeer, kLatches, kInquire, kBinding. The answer to
// kLatches is a kDecision: kBypass, done; kRefused, with its errno.
struct SocketRequest {
  Header header;
  uint32_t flags;
  int32_t fd;       // the descriptor's number in the sender, a hint for finding it again
  Endpoint remote;  // kConnect, kPeer: where to; else family 0
};
static_assert(sizeof(SocketRequest) == 48);

// kInquirePeer.
struct PeerInquiry {
  Header header;
  uint32_t flags;  // 0
  int32_t fd;      // as above
  uint64_t id;
};
static_assert(sizeof(PeerInquiry) == 32);

inline constexpr size_t kWishSize = 2048;

// kWish. The answer is a kDecision: kBypass, taken; kRefused, with its errno.
struct Wish {
  Header header;
  uint32_t flags;        // 0
  int32_t fd;            // as above
  char text[kWishSize];  // a part of a policy: latchkey(7)
};
static_assert(sizeof(Wish) == 24 + kWishSize);
static_assert(sizeof(Wish) <= kMaxMessage);

enum class Verdict : uint16_t {
  kRefused = 0,  // fail with `error`; an accepted child is closed unseen
  kLatched = 1,  // go on: the kernel now enforces the latch
  kBypass = 2,   // go on: no latch here
  kLocal = 3,    // go on: same host
  kLarval = 4,   // kConnect, non-blocking: go on, nothing moves until the SA is there; if none
                 // comes, the socket fails and the page says why
  kWait = 5,     // not decided yet: another kDecision with the same serial follows
};

struct Decision {
  Header header;
  Verdict verdict;
  Reason reason;
  int32_t error;  // errno for kRefused, else 0
  uint64_t latch;
};
static_assert(sizeof(Decision) == 32);

inline constexpr size_t kBindingSize = 96;

// Answer to kBinding: RFC 5056's octets, which begin with their type and ":".
struct Bound {
  Header header;
  int32_t error;  // errno, 0: there is one
  uint32_t size;  // of it; 0 with an error
  uint8_t octets[kBindingSize];
};
static_assert(sizeof(Bound) == 24 + kBindingSize);

struct Query {
  Header header;
  uint64_t id;
};
static_assert(sizeof(Query) == 24);

inline constexpr uint8_t kLatchImplicit = 1;  // the system asked for it, not the application
inline constexpr uint8_t kLatchClear = 2;     // unprotected, and decided so for life
inline constexpr uint8_t kLatchSuspends = 4;  // on_break = "suspend"
// 8 is free.
inline constexpr uint8_t kLatchNatLocal = 16;   // there is a NAT before us
inline constexpr uint8_t kLatchNatRemote = 32;  // there is one before the peer
inline constexpr uint8_t kLatchOffloadCrypto = 64;
inline constexpr uint8_t kLatchOffloadPacket = 128;

// One latch as `latchkey list` and `show` see it. `id` 0 means: no such latch, end of list.
struct LatchRecord {
  Header header;
  uint64_t id;
  uint8_t state;        // model State
  uint8_t protocol;     // IPPROTO_TCP
  uint8_t sa_protocol;  // IPPROTO_ESP, 0 = not known
  uint8_t mode;         // XFRM_MODE_TRANSPORT...
  uint8_t replay;       // 1 = replay window in use
  uint8_t esn;
  Reason reason;
  Endpoint local;
  Endpoint remote;
  Endpoint outer_local;   // of the IKE SA, with its ports; family 0 = not known
  Endpoint outer_remote;  // where there is a NAT, the address it shows
  uint32_t reqid;
  uint32_t spi_in;
  uint32_t spi_out;
  uint32_t pid;
  uint32_t uid;
  uint16_t key_bits;
  uint8_t pin;     // model Pin
  uint8_t flags;   // kLatch…
  uint64_t since;  // seconds since 1970, UTC
  char peer_id[kIdSize];
  char local_id[kIdSize];
  char auth[kNameSize];
  char encryption[kNameSize];
  char integrity[kNameSize];
  char policy[kNameSize];
  char rule[kNameSize];
  char program[kPathSize];
  uint64_t listener;  // a peer of an unconnected UDP socket: the id of that socket's latch; else 0
  uint64_t dropped;   // datagrams that came for such a socket and were not taken in
};
static_assert(sizeof(LatchRecord) ==
              16 + 16 + 96 + 24 + 8 + 2 * kIdSize + 5 * kNameSize + kPathSize + 16);
static_assert(sizeof(LatchRecord) <= kMaxMessage);

// An XFRM selector; a prefix whose endpoint has family 0 is any.
struct SelectorRecord {
  Endpoint source;  // its port too
  Endpoint destination;
  uint8_t source_prefix;
  uint8_t destination_prefix;
  uint8_t family;  // 4, 6; 0 = both
  uint8_t protocol;
  uint16_t source_mask;
  uint16_t destination_mask;
};
static_assert(sizeof(SelectorRecord) == 56);

enum class Owner : uint8_t { kSystem = 0, kGuard = 1, kLatch = 2 };

// One SPD entry. `more` 0 means: there is none at this place.
struct SpdRecord {
  Header header;
  uint8_t more;
  uint8_t dir;  // XFRM_POLICY_IN 0, OUT 1, FWD 2
  uint8_t block;
  uint8_t bare;
  uint8_t sa_protocol;
  uint8_t mode;
  Owner owner;
  uint8_t reserved;
  uint32_t index;
  uint32_t priority;
  uint32_t mark;
  uint32_t mark_mask;
  uint32_t if_id;
  uint32_t reqid;
  uint64_t latch;  // kLatch: whose
  SelectorRecord selector;
};
static_assert(sizeof(SpdRecord) == 16 + 8 + 24 + 8 + 56);

// One SA of the SAD with who is behind it. `more` as above.
struct SaRecord {
  Header header;
  uint8_t more;
  uint8_t inbound;
  uint8_t known;  // 1 = peer_id and what follows hold
  uint8_t static_reqid;
  uint8_t sa_protocol;
  uint8_t mode;
  uint8_t replay;
  uint8_t esn;
  uint32_t spi;
  uint32_t reqid;
  uint32_t mark_mask;
  uint16_t key_bits;
  uint16_t reserved;
  Endpoint source;
  Endpoint destination;
  SelectorRecord selector;
  char encryption[kNameSize];
  char integrity[kNameSize];
  char peer_id[kIdSize];
  char local_id[kIdSize];
  char auth[kNameSize];
};
static_assert(sizeof(SaRecord) == 16 + 8 + 16 + 48 + 56 + 3 * kNameSize + 2 * kIdSize);

inline constexpr size_t kCauseSize = 512;

// A refusal, or a latch that broke. `id` 0 means: there is none.
struct IncidentRecord {
  Header header;
  uint64_t id;     // rising
  uint64_t time;   // seconds since 1970, UTC
  uint64_t latch;  // that broke; 0 = refused, none was made
  Reason reason;
  uint8_t direction;  // model Direction
  uint8_t protocol;
  uint32_t pid;
  uint32_t uid;
  uint32_t reserved;
  Endpoint local;
  Endpoint remote;
  char program[kPathSize];
  char policy[kNameSize];
  char detail[kIdSize];   // what was found
  char rule[kCauseSize];  // under which the flow falls, with its file and line
};
static_assert(sizeof(IncidentRecord) ==
              16 + 24 + 16 + 48 + kPathSize + kNameSize + kIdSize + kCauseSize);

enum class FenceState : uint8_t {
  kUnasked = 0,  // nobody asked for one: --no-fence, or a program started by hand
  kStands = 1,
  kLacking = 2,  // there can be none: `why`
  kOver = 3,     // all that was in it has ended
};

// A session, and whether its programs are fenced. `id` 0 means: there is none; `state` and `why`
// say then whether the broker can put up fences (kUnasked: it can).
struct FenceRecord {
  Header header;
  uint64_t id;
  uint32_t uid;
  FenceState state;
  uint8_t launched;   // 1: by `latchkey run`
  uint8_t unlatched;  // 1: its shim cannot be loaded
  uint8_t reserved;
  char program[kPathSize];
  char policy[kPathSize];  // its file's name
  char why[kIdSize];
};
static_assert(sizeof(FenceRecord) == 16 + 16 + 3 * kPathSize);
static_assert(sizeof(FenceRecord) <= kMaxMessage);

// Answer to kBreak, kResume and kWatch: kNone when it was done.
struct Done {
  Header header;
  Reason reason;
  uint16_t reserved[3];
};
static_assert(sizeof(Done) == 24);

inline constexpr uint8_t kStallNone = 0;
inline constexpr uint8_t kStallBegins = 1;  // it lost its last SA
inline constexpr uint8_t kStallEnds = 2;    // it has one again

// A latch changed its state, or stalls: the latch as it is now, and what it was.
struct EventRecord {
  Header header;
  uint64_t time;      // seconds since 1970, UTC
  uint8_t from;       // model State; the same as the latch's: it was just made
  uint8_t stalled;    // kStall…; unless kStallNone, its state is unchanged
  uint8_t direction;  // model Direction
  uint8_t reserved[5];
  LatchRecord latch;
};
static_assert(sizeof(EventRecord) == 32 + sizeof(LatchRecord));
static_assert(sizeof(EventRecord) <= kMaxMessage);

}  // namespace latchkey::wire

#endif  // SHIM_WIRE_MESSAGES_H_
