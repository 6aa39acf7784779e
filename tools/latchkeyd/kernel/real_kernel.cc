#include "tools/latchkeyd/kernel/real_kernel.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "tools/latchkeyd/kernel/borrow.h"
#include "tools/latchkeyd/kernel/datagrams.h"
#include "tools/latchkeyd/kernel/modules.h"
#include "tools/latchkeyd/kernel/sa_tag.h"
#include "tools/latchkeyd/kernel/xfrm_build.h"
#include "tools/latchkeyd/kernel/xfrm_parse.h"

namespace latchkey::broker {
namespace {

constexpr int kEventBuffer = 8 << 20;  // octets

// ACQUIRE is not joined: a listener there makes the kernel leave larval SAs behind (KERNEL.md 2.4).
const std::vector<int> kEventGroups = {XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY,
                                       XFRMNLGRP_MIGRATE, XFRMNLGRP_MAPPING};

timespec Clock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now;
}

template <typename T, typename Parse>
Result<std::vector<T>> Dump(NetlinkSocket& socket, uint16_t type, const char* step, Parse parse) {
  std::vector<T> all;
  auto done = socket.Dump(BuildRequest(type), [&](std::span<const uint8_t> message) {
    std::optional<T> one = parse(message);
    if (one) all.push_back(std::move(*one));
    return one.has_value();
  });
  if (!done) return Fail(Reason::kKernelRefused, step, done.error().ToString());
  return all;
}

SpdEntry DefaultBlock(bool out) {
  SpdEntry entry;
  entry.dir = out ? XFRM_POLICY_OUT : XFRM_POLICY_IN;
  entry.priority = ~0u;
  entry.block = true;
  entry.bare = false;
  return entry;
}

}  // namespace

RealKernel::RealKernel(std::optional<uint64_t> netns, NetlinkEvents events, NetlinkSocket xfrm,
                       InetDiag diag, LocalAddresses addresses, AbortMeans means,
                       FragmentOptions fragments, const DatagramOptions& datagrams,
                       std::string hold_mark)
    : netns_(netns),
      events_(std::move(events)),
      xfrm_(std::move(xfrm)),
      diag_(std::move(diag)),
      addresses_(std::move(addresses)),
      means_(means),
      fragments_dropped_(fragments.dropped),
      fragment_bans_(std::move(fragments.table), fragments.owned),
      larval_hold_(std::move(hold_mark)),
      filter_(datagrams) {
  ForgetDeadDatagrams();
}

Result<std::unique_ptr<RealKernel>> RealKernel::Open(FragmentOptions fragments,
                                                     const DatagramOptions& datagrams,
                                                     std::string hold_mark) {
  if (Result<void> ready = EnsureXfrmUser(); !ready) return std::unexpected(ready.error());
  // The events before anything can be dumped: what changes in between is then seen twice, not
  // never.
  Result<NetlinkEvents> events = NetlinkEvents::Open(NETLINK_XFRM, kEventGroups, kEventBuffer);
  if (!events) return std::unexpected(events.error());
  Result<NetlinkSocket> xfrm = NetlinkSocket::Open(NETLINK_XFRM);
  if (!xfrm) return std::unexpected(xfrm.error());
  Result<InetDiag> diag = InetDiag::Open();
  if (!diag) return std::unexpected(diag.error());
  Result<LocalAddresses> addresses = LocalAddresses::Open();
  if (!addresses) return std::unexpected(addresses.error());
  Result<AbortMeans> means = ProbeAbortMeans(*diag);
  if (!means) return std::unexpected(means.error());
  return std::unique_ptr<RealKernel>(new RealKernel(
      OwnNetnsCookie(), std::move(*events), std::move(*xfrm), std::move(*diag),
      std::move(*addresses), *means, std::move(fragments), datagrams, std::move(hold_mark)));
}

// Of sockets that were closed while there was no broker.
void RealKernel::ForgetDeadDatagrams() {
  const std::vector<uint64_t> held = filter_.Held();
  if (held.empty()) return;
  const Result<std::unordered_set<uint64_t>> live = diag_.ListDatagramCookies();
  if (!live || live->empty()) return;
  for (const uint64_t cookie : held) {
    if (!live->contains(cookie)) filter_.Forget(cookie);
  }
}

Result<std::vector<KernelEvent>> RealKernel::ReadEvents() {
  std::vector<KernelEvent> events;
  Result<bool> lost = events_.Drain([&](std::span<const uint8_t> message) {
    if (std::optional<KernelEvent> event = ParseEvent(message)) {
      events.push_back(std::move(*event));
    }
  });
  if (!lost) return std::unexpected(lost.error());
  if (*lost) events.push_back(KernelEvent{KernelEvent::Kind::kOverrun, {}});
  return events;
}

Result<SocketFacts> RealKernel::Inspect(int fd) { return InspectSocket(fd, netns_); }

Result<void> RealKernel::SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) {
  return SetSocketPolicy(fd, facts, policy);
}

Result<void> RealKernel::SetMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) {
  return SetSocketMark(fd, facts, value, mask);
}

Result<std::vector<Sa>> RealKernel::DumpSad() {
  return Dump<Sa>(xfrm_, XFRM_MSG_GETSA, "dump SAD", ParseSa);
}

Result<std::vector<SpdEntry>> RealKernel::DumpSpd() {
  Result<std::vector<SpdEntry>> entries =
      Dump<SpdEntry>(xfrm_, XFRM_MSG_GETPOLICY, "dump SPD", ParseSpdEntry);
  if (!entries) return entries;
  if (Result<void> done = AppendDefaults(&*entries); !done) return std::unexpected(done.error());
  return entries;
}

Result<void> RealKernel::AppendDefaults(std::vector<SpdEntry>* entries) {
  std::optional<SpdDefault> value;
  const auto request = BuildRequest(XFRM_MSG_GETDEFAULT, sizeof(xfrm_userpolicy_default));
  auto done = xfrm_.Get(request, [&](std::span<const uint8_t> message) {
    value = ParseSpdDefault(message);
    return value.has_value();
  });
  // Kernels before 5.15 do not know the question, and always accept.
  if (!done && (done.error().number == EINVAL || done.error().number == EOPNOTSUPP)) return {};
  if (!done) return Fail(Reason::kKernelRefused, "get SPD default", done.error().ToString());
  if (value->block_in) entries->push_back(DefaultBlock(/*out=*/false));
  if (value->block_out) entries->push_back(DefaultBlock(/*out=*/true));
  return {};
}

Result<void> RealKernel::AddGuard(const Guard& guard) {
  Result<Octets> message = BuildAddGuard(guard);
  if (!message) return std::unexpected(message.error());
  auto done = xfrm_.Request(*message);
  if (done) return {};
  if (done.error().number == EEXIST) {
    return Fail(Reason::kConflictSpd, "add SPD entry", "one of equal selector and mark stands");
  }
  return Fail(Reason::kKernelRefused, "add SPD entry", done.error().ToString());
}

Result<void> RealKernel::DeleteGuard(const Guard& guard) {
  Result<Octets> message = BuildDeleteGuard(guard);
  if (!message) return std::unexpected(message.error());
  auto done = xfrm_.Request(*message);
  if (done || done.error().number == ENOENT) return {};
  return Fail(Reason::kKernelRefused, "delete SPD entry", done.error().ToString());
}

Result<void> RealKernel::RenewGuard(const Guard& from, const Guard& to) {
  Result<Octets> message = BuildRenewGuard(from, to);
  if (!message) return std::unexpected(message.error());
  auto done = xfrm_.Request(*message);
  if (done) return {};
  return Fail(Reason::kKernelRefused, "change SPD entry", done.error().ToString());
}

void RealKernel::DropLarval(const Address& local, const Address& remote, SaProtocol protocol,
                            uint32_t reqid, uint32_t mark) {
  Sa larval;
  larval.key = {remote, 0, protocol};
  larval.source = local;
  larval.reqid = reqid;
  larval.mark = mark;
  larval.protection.mode = Mode::kTransport;
  DropLarval(larval);
}

void RealKernel::DropLarval(const Sa& larval) {
  if (larval.key.spi != 0) {
    static_cast<void>(xfrm_.Request(BuildDeleteSa(larval.key, larval.mark)));
    return;
  }
  const Address& remote = larval.key.destination;
  if (larval.source.family != remote.family || remote.family == Family::kNone) return;
  // What has no SPI cannot be named: it is given one (and made, if it is not there), then deleted.
  std::optional<Sa> found;
  auto done = xfrm_.Get(BuildAllocSpi(larval.source, remote, larval.key.protocol,
                                      larval.protection.mode, larval.reqid, larval.mark),
                        [&](std::span<const uint8_t> message) {
                          found = ParseSa(message);
                          return found.has_value();
                        });
  if (!done || !found || found->reqid != larval.reqid || !found->larval) return;
  static_cast<void>(xfrm_.Request(BuildDeleteSa(found->key, larval.mark)));
}

Result<void> RealKernel::BanFragments(const std::vector<FragmentBan>& bans) {
  if (fragments_dropped_) return {};
  return fragment_bans_.Set(bans);
}

bool RealKernel::FragmentsBanned() { return fragments_dropped_ || fragment_bans_.Stand(); }

bool RealKernel::IsLocalAddress(const Address& address) { return addresses_.Contains(address); }

std::optional<int> RealKernel::Borrow(const SocketHint& hint) {
  UniqueFd fd = BorrowSocket(hint);
  if (!fd) return std::nullopt;
  return fd.Release();
}

void RealKernel::GiveBack(int fd) {
  // The program may have let go of it meanwhile, and have told it to linger.
  if (!prompt_close_.CloseAnyway(fd)) close(fd);
}

Result<void> RealKernel::Abort(const SocketHint& hint, int fd, const Flow& flow) {
  return AbortSocket(diag_, means_, hint, fd, flow);
}

Result<std::vector<LiveSocket>> RealKernel::LiveSockets() { return diag_.ListSockets(); }

void RealKernel::PushOut(int fd) { PushOutDatagrams(fd); }

void RealKernel::ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                                  uint32_t scope) {
  if (before_connect_) before_connect_(fd, remote);
  ConnectAndDrain(fd, facts.v6_socket, remote, scope);
}

void RealKernel::Drain(int fd) { DrainDatagrams(fd); }

Result<std::unordered_set<uint64_t>> RealKernel::HeldSocketInodes() { return ListHeldSockets(); }

std::optional<Address> RealKernel::SourceAddress(const Address& remote, uint32_t scope) {
  return source_finder_.Find(remote, scope);
}

Result<void> RealKernel::BindAny(int fd, const SocketFacts& facts) { return BindToAny(fd, facts); }

Result<void> RealKernel::FilterDatagrams(int fd, const SocketFacts& facts,
                                         const std::vector<DatagramRegion>& regions) {
  return filter_.Filter(fd, facts.cookie, regions);
}

Result<void> RealKernel::Admit(const DatagramAdmission& admission) {
  return filter_.Admit(admission);
}

void RealKernel::Dismiss(const DatagramAdmission& admission) { filter_.Dismiss(admission); }

void RealKernel::ForgetDatagrams(uint64_t cookie) { filter_.Forget(cookie); }

uint64_t RealKernel::DroppedDatagrams(uint64_t cookie) { return filter_.Dropped(cookie); }

Result<void> RealKernel::TagSa(const Sa& sa, uint32_t tag, uint32_t mask) {
  // Before it can mean this SA it must not mean another one to anybody.
  filter_.DropInherited(tag);
  return TagIncomingSa(xfrm_, sa, tag, mask);
}

int64_t RealKernel::NowMs() {
  const timespec now = Clock(CLOCK_MONOTONIC);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

uint64_t RealKernel::WallSeconds() { return static_cast<uint64_t>(Clock(CLOCK_REALTIME).tv_sec); }

}  // namespace latchkey::broker
