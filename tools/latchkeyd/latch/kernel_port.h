// What the latch database needs of the kernel. `kernel/` implements it over netlink and socket
// options; fake_kernel.h beside this file stands in for it in tests. Every call returns at once,
// but for AwaitArrivals().
#ifndef TOOLS_LATCHKEYD_LATCH_KERNEL_PORT_H_
#define TOOLS_LATCHKEYD_LATCH_KERNEL_PORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "tools/latchkeyd/latch/no_xfrm.h"
#include "tools/latchkeyd/latch/sa.h"

namespace latchkey::broker {

// A socket as found behind a descriptor. Addresses are unmapped: a v4-mapped one is kV4.
struct SocketFacts {
  uint64_t cookie = 0;     // SO_COOKIE: the socket's identity, for life
  uint64_t inode = 0;      // of the descriptor, to find it under /proc
  bool inet = false;       // AF_INET or AF_INET6
  bool v6_socket = false;  // AF_INET6: options go to the IPv6 level
  bool v6_only = false;
  bool stream_tcp = false;    // SOCK_STREAM and IPPROTO_TCP
  bool datagram_udp = false;  // SOCK_DGRAM and IPPROTO_UDP
  bool shut_down = false;     // UDP: both ways, for good
  bool own_netns = false;     // SO_NETNS_COOKIE equals the broker's
  uint8_t tcp_state = 0;      // TCP_ESTABLISHED = 1 … (TCP_INFO)
  uint32_t mark = 0;
  SocketAddress local;
  SocketAddress remote;  // kNone when not connected
};

// The addresses between which a tunnel runs; of family kNone in transport mode.
struct TunnelEnds {
  Address local;
  Address remote;

  auto operator<=>(const TunnelEnds&) const = default;
};

// A per-socket policy: both directions are set, IN first. Wildcard selector in `family`, but for
// kAllow: what a socket sends elsewhere meanwhile, or takes in, is the SPD's to judge.
struct SocketPolicy {
  enum class Kind : uint8_t {
    kProtect,    // this mode, reqid (and SPIs when not 0), both directions
    kRequireIn,  // IN: protected under any reqid; OUT is not touched
    kAwaitIn,    // IN: protected under this reqid; OUT is not touched
    kAllow,      // in clear, whatever the SPD says, both directions: `flow`, and nothing else
    kBlock,      // nothing moves, by `family`; the other is kept by the mark and the standing BLOCK
    kClear,      // take both away: the SPD decides
  };
  Kind kind = Kind::kBlock;
  Family family = Family::kV4;
  SaProtocol protocol = SaProtocol::kEsp;
  Mode mode = Mode::kTransport;
  uint32_t reqid = 0;
  uint32_t spi_in = 0;  // host order; 0 = any
  uint32_t spi_out = 0;
  TunnelEnds ends;  // kProtect in tunnel mode: exact
  Flow flow;        // kAllow: its protocol and remote end count
};

// An SPD entry of ours. Outgoing ones carry the guard mark; incoming ones cannot, but those that
// are the proof of a tag (TagProof() in held.h) carry the tag.
struct Guard {
  enum class Action : uint8_t { kBlock, kEsp, kAllow, kAh };
  bool out = true;
  Action action = Action::kBlock;
  uint32_t reqid = 0;  // kEsp, kAh: exact for OUT, 0 = any for IN
  uint32_t priority = 0;
  uint32_t mark = 0;             // bits of the packet's mark that are set; 0: whatever it is
  uint32_t unset = 0;            // others, that are not; 0 where `mark` is
  Selector selector;             // family set; in tunnel mode of what is inside
  Mode mode = Mode::kTransport;  // kEsp, kAh
  TunnelEnds ends;               // tunnel mode: exact for OUT; kNone for IN: any

  auto operator<=>(const Guard&) const = default;
};

// True when the kernel takes both for one entry, whatever else they say.
constexpr bool SamePlace(const Guard& a, const Guard& b) {
  return a.out == b.out && a.mark == b.mark && a.unset == b.unset && a.selector == b.selector;
}

// Returns the action of a guard that lets only `protocol` pass.
constexpr Guard::Action RequireAction(SaProtocol protocol) {
  return protocol == SaProtocol::kAh ? Guard::Action::kAh : Guard::Action::kEsp;
}

// Fragments from `remote` to `local` that came out of no SA of `reqid` are dropped: what comes in
// pieces out of a tunnel is put together afterwards, and a piece in clear could complete it.
struct FragmentBan {
  Prefix local;
  Prefix remote;
  uint32_t reqid = 0;

  auto operator<=>(const FragmentBan&) const = default;
};

// True for a guard that lets only what an SA protects pass.
constexpr bool Requires(Guard::Action action) {
  return action == Guard::Action::kEsp || action == Guard::Action::kAh;
}

// Where a socket may be found again: hints, never evidence.
struct SocketHint {
  uint64_t cookie = 0;
  uint64_t inode = 0;
  int32_t pid = 0;
  int32_t fd = -1;
};

inline constexpr size_t kMostBut = 7;

// What the kernel lets an unconnected UDP socket take in from one place. What no region covers is
// dropped.
struct DatagramRegion {
  enum class Need : uint8_t {
    kPass,  // whatever it came under, or in clear
    kTag,   // nothing but what an admission lets in
    kDrop,
  };
  Prefix remote;
  uint16_t port = 0;  // 0: any; else the prefix is one address
  Need need = Need::kDrop;
  bool same_host = false;        // what the loopback device brings comes in all the same
  std::vector<PortRange> but{};  // kPass: of these ports of the other end only what an admission
                                 // lets in; kMostBut at most

  auto operator<=>(const DatagramRegion&) const = default;
};

// Lets an unconnected UDP socket take in what came from `remote` (port 0: any) under the SAs that
// bear `tag`.
struct DatagramAdmission {
  uint64_t cookie = 0;
  SocketAddress remote;
  uint32_t tag = 0;  // in the bits of the tags, not 0

  auto operator<=>(const DatagramAdmission&) const = default;
};

struct LiveSocket {
  uint64_t cookie = 0;
  uint8_t tcp_state = 0;
  uint32_t queued = 0;  // of a listener: children nobody has accepted yet (idiag_rqueue)
  SocketAddress local;
  SocketAddress remote;
  uint64_t inode = 0;  // 0: no program holds it, or none has accepted it yet
  uint32_t mark = 0;   // SO_MARK
  uint8_t protocol = kProtocolTcp;
};

inline constexpr uint32_t kLoopbackDevice = 1;  // LOOPBACK_IFINDEX, in every network namespace

// The way of a packet.
struct Route {
  std::string device;
  uint32_t index = 0;  // of the device
  bool stays = false;  // it never leaves this host

  bool operator==(const Route&) const = default;
};

struct KernelEvent {
  enum class Kind : uint8_t {
    kSaAdded,    // also: changed in place
    kSaDeleted,  // also: expired hard
    kSaFlushed,
    kSpdChanged,  // an entry added, changed or deleted; a flush; the default action
    kOverrun,     // events were lost: dump again
  };
  Kind kind = Kind::kOverrun;
  Sa sa;                // kSaAdded: whole. kSaDeleted: key (and the rest when the kernel sent it)
  bool unused = false;  // kSaDeleted: the kernel says that no packet was ever taken in under it
};

class KernelPort {
 public:
  virtual ~KernelPort() = default;

  // Reads what is behind `fd`. An error for what is no socket at all.
  virtual Result<SocketFacts> Inspect(int fd) = 0;
  virtual Result<void> SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) = 0;
  // Sets the bits `value` under `mask` of SO_MARK, leaving the others. A UDP socket that gets any
  // receives its datagrams one by one from then on: of those that the kernel merges it checks the
  // first alone.
  virtual Result<void> SetMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) = 0;
  // Returns when every packet that was on its way into a socket as this was called has got there:
  // any later one meets the policies and guards that are in force now. Takes some milliseconds (an
  // RCU grace period). An error where the kernel cannot tell (one booted with nohz_full).
  virtual Result<void> AwaitArrivals() = 0;

  // Has a UDP socket tell its program the marks of what it receives (SO_RCVMARK), or not.
  // kUnsupported where the kernel cannot (before Linux 5.19).
  virtual Result<void> TellMarks(int fd, bool on) = 0;

  virtual Result<std::vector<Sa>> DumpSad() = 0;
  virtual Result<std::vector<SpdEntry>> DumpSpd() = 0;
  // Adds an SPD entry, exclusively: kConflictSpd when one of equal selector and mark is there.
  virtual Result<void> AddGuard(const Guard& guard) = 0;
  // Takes it away again; one that is gone already is no error.
  virtual Result<void> DeleteGuard(const Guard& guard) = 0;

  // Changes the reqid of a guard that is there; what the kernel holds back for want of an SA under
  // the old one leaves under the new.
  virtual Result<void> RenewGuard(const Guard& from, const Guard& to) = 0;
  // While on, a packet whose SPD entry has no SA yet is held back until there is one, instead of
  // being lost (net.core.xfrm_larval_drop = 0). Off gives back what was before.
  virtual void HoldPackets(bool on) = 0;
  // Forgets what the kernel has begun for want of an SA under `reqid` between two addresses, for a
  // guard with this mark.
  virtual void DropLarval(const Address& local, const Address& remote, SaProtocol protocol,
                          uint32_t reqid, uint32_t mark) = 0;
  // The same for one that a dump shows (`larval`), whether or not it has got an SPI.
  virtual void DropLarval(const Sa& larval) = 0;
  // Makes these the bans that hold, all at once. kUnsupported where the kernel cannot.
  virtual Result<void> BanFragments(const std::vector<FragmentBan>& bans) = 0;
  // False when somebody took away what BanFragments() made.
  virtual bool FragmentsBanned() = 0;

  // True when `address` belongs to this host (any interface, loopback included). That says nothing
  // of where a packet to it goes: the interface may be down, or of a VRF.
  virtual bool IsLocalAddress(const Address& address) = 0;

  // Duplicates the program's descriptor of the socket, found by its hints and then by its inode
  // under /proc, and proved by its cookie. Nothing when no process holds it (or none can be
  // reached).
  // The caller gives it back.
  virtual std::optional<int> Borrow(const SocketHint& hint) = 0;
  virtual void GiveBack(int fd) = 0;
  // Ends a connection so that the program's calls fail: by SOCK_DESTROY where the kernel has it,
  // else by connect(AF_UNSPEC) on `fd` (-1: none at hand). The policies must block already.
  virtual Result<void> Abort(const SocketHint& hint, int fd, const Flow& flow) = 0;

  // Lists all TCP sockets of the namespace but TIME_WAIT and CLOSE ones, v4 and v6, listeners
  // included, the connected UDP sockets, and of those that are not (tcp_state 7, no remote) the
  // ones that have a port and bear a mark (inet_diag; addresses unmapped). UDP is left out where
  // the kernel cannot list it.
  virtual Result<std::vector<LiveSocket>> LiveSockets() = 0;

  // Returns the inodes of all sockets that any process holds (one pass over /proc/PID/fd).
  virtual Result<std::unordered_set<uint64_t>> HeldSocketInodes() = 0;

  // Returns the source address the kernel would choose for a packet to `remote` (a connected
  // datagram socket of the broker's own tells); nothing where there is no route.
  virtual std::optional<Address> SourceAddress(const Address& remote, uint32_t scope) = 0;
  // True when other sockets may listen at this one's place (SO_REUSEPORT), or that cannot be told.
  virtual bool SharesPort(int fd) = 0;
  // True when what goes to `remote` goes to all of a link, as its routes have it.
  virtual bool IsBroadcast(const Address& remote) = 0;

  // Reads past which devices the SPD is not asked: the kernel tells nobody when that changes.
  virtual Result<NoXfrm> FindNoXfrm() = 0;
  // Returns the way of what a socket sends from `local` (an address, or any) to `remote` when it
  // bears `mark`; nothing where that cannot be told, or there is no route.
  virtual std::optional<Route> RouteTo(int fd, const Address& local, const Address& remote,
                                       uint32_t mark) = 0;

  // Binds a socket that has no port yet to a port of the kernel's choice and the address that it
  // has, or any, as listen() would do by itself.
  virtual Result<void> BindAny(int fd, const SocketFacts& facts) = 0;

  // Sends what a UDP socket keeps back until its program adds more (MSG_MORE, UDP_CORK): it was
  // meant for the peer, and takes the way, that the socket had until now.
  virtual void PushOut(int fd) = 0;
  // Connects a UDP socket and then throws away all that it has received until then. Its policy must
  // be in force: then nothing else than the peer's comes in any more, whatever the program reads
  // next. `scope`: interface of a link-local IPv6 address, else 0. A connect that fails is the
  // program's to see: its own will too.
  virtual void ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                                uint32_t scope) = 0;
  // Throws away what a UDP socket has received.
  virtual void Drain(int fd) = 0;

  // Puts the filter on an unconnected UDP socket, for good (its program cannot take it off), which
  // drops before they are queued the datagrams that `regions` and admissions do not let pass; or
  // gives a socket that has it these regions, all at once. Of several that cover a source, one with
  // its port counts, then the one with the longest prefix. What a broker before us admitted to the
  // socket, and we have not yet, ends. kUnsupported where the kernel has no such filters or the
  // socket has one of its program's (or of a broker's whose maps are lost); kLimit; kBadRequest:
  // `but` on other than kPass, or on a region of one port.
  virtual Result<void> FilterDatagrams(int fd, const SocketFacts& facts,
                                       const std::vector<DatagramRegion>& regions) = 0;
  virtual Result<void> Admit(const DatagramAdmission& admission) = 0;
  // One that does not stand is no error.
  virtual void Dismiss(const DatagramAdmission& admission) = 0;
  // Forgets regions and admissions of a socket: from now on it takes in nothing.
  virtual void ForgetDatagrams(uint64_t cookie) = 0;
  // How many datagrams the filter of a socket has dropped.
  virtual uint64_t DroppedDatagrams(uint64_t cookie) = 0;
  // Makes the kernel mark what comes under an incoming SA with `tag` in the bits `mask`; its other
  // bits, and what else its mark says, stay. It is as if changed in place: an event follows. What a
  // broker before us admitted under the tag, and we have not yet, ends. kNoSa, kConflictSa: the SA
  // is not there any more. kOffloadUntagged: a card does its work.
  virtual Result<void> TagSa(const Sa& sa, uint32_t tag, uint32_t mask) = 0;

  // Monotonic time in milliseconds, and seconds since 1970.
  virtual int64_t NowMs() = 0;
  virtual uint64_t WallSeconds() = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_KERNEL_PORT_H_
