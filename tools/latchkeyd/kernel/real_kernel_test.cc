#include "tools/latchkeyd/kernel/real_kernel.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/test_netns.h"
#include "tools/latchkeyd/kernel/xfrm_build.h"

namespace latchkey::broker {
namespace {

constexpr uint32_t kMark = 0x80000000;

Guard MakeGuard(bool out, Guard::Action action, uint32_t mark, const char* source = "10.9.0.0/16") {
  Guard guard;
  guard.out = out;
  guard.action = action;
  guard.reqid = action == Guard::Action::kEsp ? 7 : 0;
  guard.priority = 1;
  guard.mark = mark;
  guard.selector.source = *Prefix::Parse(source);
  guard.selector.family = guard.selector.source.base.family;
  guard.selector.destination = Prefix{Address::AnyOf(guard.selector.family), 0};
  guard.selector.protocol = kProtocolTcp;
  guard.selector.destination_port = 443;
  guard.selector.destination_mask = 0xffff;
  return guard;
}

std::unique_ptr<RealKernel> Open() {
  Result<std::unique_ptr<RealKernel>> kernel = RealKernel::Open();
  if (!kernel) FAIL(kernel.error().ToString());
  return std::move(*kernel);
}

bool Readable(int fd) {
  pollfd poller{fd, POLLIN, 0};
  return poll(&poller, 1, 0) == 1;
}

// Sends one request to the kernel, past the class under test.
void Ask(uint16_t type, const void* body, size_t size) {
  Result<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_XFRM);
  REQUIRE(socket);
  nlmsghdr header{};
  header.nlmsg_type = type;
  std::vector<uint8_t> octets(sizeof(header) + NLMSG_ALIGN(size));
  std::memcpy(octets.data(), &header, sizeof(header));
  if (size != 0) std::memcpy(octets.data() + sizeof(header), body, size);
  const auto done = socket->Request(octets);
  INFO((done ? std::string() : done.error().ToString()));
  REQUIRE(done);
}

TEST_CASE("Guards come back from the kernel as they were added") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const Guard guards[] = {MakeGuard(true, Guard::Action::kBlock, kMark),
                          MakeGuard(true, Guard::Action::kEsp, kMark, "fd00::/64"),
                          MakeGuard(false, Guard::Action::kEsp, 0),
                          MakeGuard(false, Guard::Action::kAllow, 0, "fd00:1::/64")};
  for (const Guard& guard : guards) REQUIRE(kernel->AddGuard(guard));
  Result<std::vector<SpdEntry>> spd = kernel->DumpSpd();
  REQUIRE(spd);
  REQUIRE(spd->size() == 4);
  for (const Guard& guard : guards) {
    const auto entry = std::ranges::find(*spd, guard.selector, &SpdEntry::selector);
    // Two of them share a selector and differ in direction.
    const auto it = std::ranges::find_if(*spd, [&](const SpdEntry& each) {
      return each.selector == guard.selector && each.dir == (guard.out ? 1 : 0);
    });
    REQUIRE(entry != spd->end());
    REQUIRE(it != spd->end());
    CHECK(it->mark == guard.mark);
    CHECK(it->mark_mask == guard.mark);
    CHECK(it->priority == 1);
    CHECK(it->block == (guard.action == Guard::Action::kBlock));
    CHECK(it->bare == (guard.action == Guard::Action::kAllow));
    CHECK(it->reqid == guard.reqid);
    if (guard.action == Guard::Action::kEsp) {
      CHECK(it->protocol == SaProtocol::kEsp);
      CHECK(it->mode == Mode::kTransport);
    }
  }
  for (const Guard& guard : guards) REQUIRE(kernel->DeleteGuard(guard));
  spd = kernel->DumpSpd();
  REQUIRE(spd);
  CHECK(spd->empty());
  CHECK(kernel->DeleteGuard(guards[0]));  // gone already: no error
}

TEST_CASE("What bears a tag, and no SA brought, is dropped; other marks are not looked at") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  REQUIRE(std::ofstream("/proc/sys/net/ipv4/conf/lo/disable_policy") << 0 << std::flush);
  const TestUdp receiver("127.0.0.1");
  const TestUdp sender("127.0.0.1");
  const TestUdp other("127.0.0.2");
  const auto comes = [&](const TestUdp& from, uint32_t mark) {
    from.Send(receiver, "127.0.0.1", "x", mark);
    return receiver.Take() == "x";
  };
  constexpr uint32_t kTag = 0x00050000;
  Guard proof =
      MakeGuard(false, Guard::Action::kEsp, kTag, "127.0.0.1/32");  // as TagProof() has it
  proof.priority = 0xffffffff;
  proof.unset = 0x7fff0000 & ~kTag;
  proof.selector.destination = proof.selector.source;
  proof.selector.protocol = kProtocolUdp;
  proof.selector.destination_port = proof.selector.destination_mask = 0;
  CHECK(comes(sender, kTag));
  REQUIRE(kernel->AddGuard(proof));
  CHECK_FALSE(kernel->AddGuard(proof));
  Guard next = proof;  // of the next SA
  next.mark = 0x00060000;
  next.unset = 0x7ff90000;
  CHECK(kernel->AddGuard(next));
  CHECK_FALSE(comes(sender, kTag));
  CHECK_FALSE(comes(sender, kTag | 0x80000001));
  CHECK_FALSE(comes(sender, next.mark));
  CHECK(comes(sender, 0));
  CHECK(comes(sender, 0x00040000));
  CHECK(comes(sender, kTag | 0x00100000));
  CHECK(comes(other, kTag));
  // Whatever the administrator says of it counts.
  Guard allow = proof;
  allow.action = Guard::Action::kAllow;
  allow.mark = allow.unset = 0;
  allow.priority = 0xfffffffe;
  REQUIRE(kernel->AddGuard(allow));
  CHECK(comes(sender, kTag));
  REQUIRE(kernel->DeleteGuard(allow));
  Guard renewed = proof;
  renewed.reqid = 9;
  REQUIRE(kernel->RenewGuard(proof, renewed));
  CHECK_FALSE(comes(sender, kTag));
  REQUIRE(kernel->DeleteGuard(renewed));
  CHECK(comes(sender, kTag));
  CHECK_FALSE(comes(sender, next.mark));
}

TEST_CASE("A tunnel's guards and policies are what the kernel takes and shows") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const TunnelEnds ends{*Address::Parse("10.9.0.1"), *Address::Parse("10.9.0.2")};
  // Another family inside than outside, and a way in that names no end.
  Guard out = MakeGuard(true, Guard::Action::kEsp, kMark, "fd00::/64");
  out.mode = Mode::kTunnel;
  out.ends = ends;
  Guard in = MakeGuard(false, Guard::Action::kEsp, 0);
  in.mode = Mode::kTunnel;
  REQUIRE(kernel->AddGuard(out));
  REQUIRE(kernel->AddGuard(in));
  Result<std::vector<SpdEntry>> spd = kernel->DumpSpd();
  REQUIRE(spd);
  REQUIRE(spd->size() == 2);
  for (const SpdEntry& entry : *spd) {
    const bool outgoing = entry.dir == 1;
    CHECK(entry.mode == Mode::kTunnel);
    CHECK(entry.tunnel_source == (outgoing ? ends.local : Address{}));
    CHECK(entry.tunnel_destination == (outgoing ? ends.remote : Address{}));
  }
  const UniqueFd fd = TcpSocket(AF_INET6);
  const Result<SocketFacts> facts = kernel->Inspect(fd.get());
  REQUIRE(facts);
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  policy.family = Family::kV6;
  policy.mode = Mode::kTunnel;
  policy.reqid = 7;
  policy.ends = ends;
  CHECK(kernel->SetPolicy(fd.get(), *facts, policy));
  policy.family = Family::kV4;  // of a v4-mapped peer
  CHECK(kernel->SetPolicy(fd.get(), *facts, policy));
}

TEST_CASE("Equal selector and mark is a conflict; another mark is another entry") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const Guard marked = MakeGuard(true, Guard::Action::kBlock, kMark);
  const Guard plain = MakeGuard(true, Guard::Action::kBlock, 0);
  REQUIRE(kernel->AddGuard(marked));
  const Result<void> again = kernel->AddGuard(MakeGuard(true, Guard::Action::kEsp, kMark));
  REQUIRE_FALSE(again);
  CHECK(again.error().reason == Reason::kConflictSpd);
  REQUIRE(kernel->AddGuard(plain));
  REQUIRE(kernel->DeleteGuard(marked));
  const Result<std::vector<SpdEntry>> spd = kernel->DumpSpd();
  REQUIRE(spd);
  REQUIRE(spd->size() == 1);
  CHECK(spd->front().mark_mask == 0);
}

TEST_CASE("The marked guard stops what bears the mark, and nothing else") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  // Loopback does not ask the SPD: a way out must be had.
  REQUIRE(std::system("ip link add v0 type veth peer name v1 && ip link set v0 up && "
                      "ip link set v1 up && ip address add 10.9.0.1/24 dev v0") == 0);
  CHECK(kernel->IsLocalAddress(*Address::Parse("10.9.0.1")));
  CHECK(kernel->SourceAddress(*Address::Parse("10.9.0.2"), 0) == Address::Parse("10.9.0.1"));
  const auto attempt = [&](uint32_t mark) {
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM, 0));
    REQUIRE(kernel->SetMark(fd.get(), *kernel->Inspect(fd.get()), mark, kMark));
    return ConnectTo(fd.get(), AF_INET, "10.9.0.2", 443);
  };
  CHECK(attempt(kMark) == 0);
  Guard guard = MakeGuard(true, Guard::Action::kBlock, kMark, "0.0.0.0/0");
  guard.selector.protocol = 0;
  guard.selector.destination_port = guard.selector.destination_mask = 0;
  REQUIRE(kernel->AddGuard(guard));
  CHECK(attempt(kMark) == EPERM);
  CHECK(attempt(0) == 0);
  // Asking for the source address goes past the SPD, even where it blocks everything.
  Guard all = guard;
  all.mark = 0;
  REQUIRE(kernel->AddGuard(all));
  CHECK(attempt(0) == EPERM);
  CHECK(kernel->SourceAddress(*Address::Parse("10.9.0.2"), 0) == Address::Parse("10.9.0.1"));
}

TEST_CASE("Changes of the SPD are told") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  CHECK_FALSE(Readable(kernel->EventFd()));
  REQUIRE(kernel->ReadEvents());
  const Guard guard = MakeGuard(true, Guard::Action::kBlock, kMark);
  const auto changed = [&] {
    CHECK(Readable(kernel->EventFd()));
    const Result<std::vector<KernelEvent>> events = kernel->ReadEvents();
    REQUIRE(events);
    REQUIRE(events->size() == 1);
    CHECK(events->front().kind == KernelEvent::Kind::kSpdChanged);
    CHECK_FALSE(Readable(kernel->EventFd()));
  };
  REQUIRE(kernel->AddGuard(guard));
  changed();
  REQUIRE(kernel->DeleteGuard(guard));
  changed();
  REQUIRE(kernel->AddGuard(guard));
  changed();
  Ask(XFRM_MSG_FLUSHPOLICY, nullptr, 0);
  changed();
}

TEST_CASE("An empty SAD can be dumped") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const Result<std::vector<Sa>> sad = kernel->DumpSad();
  REQUIRE(sad);
  CHECK(sad->empty());
}

// Has the kernel make an SA that has no keys yet, with this SPI. Where another has that already,
// ours is left without one, as the kernel makes them by itself for want of an SA.
void Begin(uint32_t reqid, uint32_t mark, uint32_t spi, Mode mode = Mode::kTransport) {
  std::vector<uint8_t> message =
      BuildAllocSpi(*Address::Parse("10.9.0.1"), *Address::Parse("10.9.0.2"), SaProtocol::kEsp,
                    mode, reqid, mark);
  xfrm_userspi_info asked;
  std::memcpy(&asked, message.data() + NLMSG_HDRLEN, sizeof(asked));
  asked.min = asked.max = spi;
  std::memcpy(message.data() + NLMSG_HDRLEN, &asked, sizeof(asked));
  Result<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_XFRM);
  REQUIRE(socket);
  static_cast<void>(socket->Get(message, [](std::span<const uint8_t>) { return true; }));
}

TEST_CASE("An SA that was only begun is dropped as a dump shows it, with an SPI or without") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  Begin(7, kMark, 0x2000);
  Begin(8, kMark, 0x2000);
  Begin(9, 0, 0x2000);
  Begin(10, kMark, 0x2000, Mode::kTunnel);
  Result<std::vector<Sa>> sad = kernel->DumpSad();
  REQUIRE(sad);
  REQUIRE(sad->size() == 4);
  for (const Sa& begun : *sad) {
    CHECK(begun.larval);
    CHECK(begun.mark == (begun.reqid == 9 ? 0 : kMark));
    CHECK(begun.mark_mask == begun.mark);
    if (begun.reqid == 7) CHECK(begun.key.spi == 0x2000);
    if (begun.reqid == 8 || begun.reqid == 10) CHECK(begun.key.spi == 0);
    if (begun.mark == kMark) kernel->DropLarval(begun);
  }
  sad = kernel->DumpSad();
  REQUIRE(sad);
  REQUIRE(sad->size() == 1);
  CHECK(sad->front().reqid == 9);
}

TEST_CASE("The kernel's own default shows as the last entry") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const xfrm_userpolicy_default block_out{XFRM_USERPOLICY_ACCEPT, XFRM_USERPOLICY_ACCEPT,
                                          XFRM_USERPOLICY_BLOCK};
  Ask(XFRM_MSG_SETDEFAULT, &block_out, sizeof(block_out));
  const Result<std::vector<KernelEvent>> events = kernel->ReadEvents();
  REQUIRE(events);
  REQUIRE(events->size() == 1);
  CHECK(events->front().kind == KernelEvent::Kind::kSpdChanged);
  const Result<std::vector<SpdEntry>> spd = kernel->DumpSpd();
  REQUIRE(spd);
  REQUIRE(spd->size() == 1);
  const Flow flow{Direction::kOut,
                  kProtocolTcp,
                  {*Address::Parse("10.0.0.1"), 1},
                  {*Address::Parse("10.0.0.2"), 2}};
  CHECK(LookUpSpd(*spd, flow, /*out=*/true).action == SystemAction::kDiscard);
  CHECK(LookUpSpd(*spd, flow, /*out=*/false).action == SystemAction::kBypass);
}

TEST_CASE("Too many events at once read as an overrun") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const int small = 4096;
  REQUIRE(setsockopt(kernel->EventFd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
  const Guard guard = MakeGuard(true, Guard::Action::kBlock, kMark);
  for (int i = 0; i < 50; ++i) {
    REQUIRE(kernel->AddGuard(guard));
    REQUIRE(kernel->DeleteGuard(guard));
  }
  const Result<std::vector<KernelEvent>> events = kernel->ReadEvents();
  REQUIRE(events);
  CHECK(std::ranges::count(*events, KernelEvent::Kind::kOverrun, &KernelEvent::kind) == 1);
  CHECK(events->size() < 100);
  REQUIRE(kernel->AddGuard(guard));  // and it goes on
  const Result<std::vector<KernelEvent>> more = kernel->ReadEvents();
  REQUIRE(more);
  CHECK(more->size() == 1);
}

TEST_CASE("Socket policies show in the dump but are no entries of the SPD") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const UniqueFd fd = TcpSocket(AF_INET);
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  policy.reqid = 7;
  policy.spi_out = 0x101;
  REQUIRE(kernel->SetPolicy(fd.get(), *kernel->Inspect(fd.get()), policy));
  const Result<std::vector<SpdEntry>> spd = kernel->DumpSpd();
  REQUIRE(spd);
  REQUIRE(spd->size() == 2);
  for (const SpdEntry& entry : *spd) {
    CHECK((entry.dir == 3 || entry.dir == 4));
    CHECK(entry.reqid == 7);
  }
}

TEST_CASE("A broken socket is borrowed, blocked and aborted") {
  TestNetns netns;
  const std::unique_ptr<RealKernel> kernel = Open();
  const TcpPair pair = MakeTcpPair();
  const Result<SocketFacts> facts = kernel->Inspect(pair.client.get());
  REQUIRE(facts);
  CHECK(facts->own_netns);
  const SocketHint hint{facts->cookie, facts->inode, getpid(), pair.client.get()};
  const std::optional<int> copy = kernel->Borrow(hint);
  REQUIRE(copy);
  SocketPolicy block;
  REQUIRE(kernel->SetPolicy(*copy, *facts, block));
  const Flow flow{Direction::kOut, kProtocolTcp, facts->local, facts->remote};
  REQUIRE(kernel->Abort(hint, *copy, flow));
  kernel->GiveBack(*copy);
  char octet;
  CHECK(recv(pair.client.get(), &octet, 1, MSG_DONTWAIT) == -1);
  CHECK((errno == ECONNABORTED || errno == ECONNRESET));
  const Result<std::vector<LiveSocket>> live = kernel->LiveSockets();
  REQUIRE(live);
  CHECK(std::ranges::count(*live, facts->cookie, &LiveSocket::cookie) == 0);
}

}  // namespace
}  // namespace latchkey::broker
