#include "tools/latchkeyd/kernel/socket_ops.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

SocketPolicy Protect(Family family) {
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  policy.family = family;
  policy.reqid = 7;
  return policy;
}

SocketPolicy OfKind(SocketPolicy::Kind kind, Family family) {
  SocketPolicy policy;
  policy.kind = kind;
  policy.family = family;
  return policy;
}

SocketFacts FactsOf(int fd) {
  Result<SocketFacts> facts = InspectSocket(fd, OwnNetnsCookie());
  REQUIRE(facts);
  return *facts;
}

TEST_CASE("Inspect says what a connected socket is") {
  TestNetns netns;
  const TcpPair pair = MakeTcpPair();
  const SocketFacts client = FactsOf(pair.client.get());
  const SocketFacts server = FactsOf(pair.server.get());
  CHECK(client.inet);
  CHECK_FALSE(client.v6_socket);
  CHECK(client.stream_tcp);
  CHECK(client.own_netns);
  CHECK(client.tcp_state == 1);
  CHECK(client.local == server.remote);
  CHECK(client.remote == server.local);
  CHECK(client.remote.address == *Address::Parse("127.0.0.1"));
  CHECK(client.cookie != 0);
  CHECK(client.cookie != server.cookie);
  struct stat status {};
  REQUIRE(fstat(pair.client.get(), &status) == 0);
  CHECK(client.inode == status.st_ino);
  CHECK(FactsOf(pair.listener.get()).tcp_state == 10);
}

TEST_CASE("Inspect unmaps and tells sockets that are not ours to latch") {
  TestNetns netns;
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, /*dual=*/true);
  const UniqueFd client = TcpSocket(AF_INET6);
  REQUIRE(ConnectTo(client.get(), AF_INET6, "::ffff:127.0.0.1", port) == 0);
  const SocketFacts facts = FactsOf(client.get());
  CHECK(facts.v6_socket);
  CHECK_FALSE(facts.v6_only);
  CHECK(facts.remote == SocketAddress{*Address::Parse("127.0.0.1"), port});
  CHECK(FactsOf(listener.get()).local.address == Address::AnyOf(Family::kV6));
  CHECK(FactsOf(listener.get()).remote.address.family == Family::kNone);

  const UniqueFd udp(socket(AF_INET, SOCK_DGRAM, 0));
  CHECK(FactsOf(udp.get()).inet);
  CHECK_FALSE(FactsOf(udp.get()).stream_tcp);
  CHECK(FactsOf(udp.get()).datagram_udp);
  for (const int protocol : {IPPROTO_TCP, IPPROTO_UDP}) {
    const UniqueFd raw(socket(AF_INET, SOCK_RAW, protocol));
    REQUIRE(raw);
    CHECK(FactsOf(raw.get()).inet);
    CHECK_FALSE(FactsOf(raw.get()).stream_tcp);
    CHECK_FALSE(FactsOf(raw.get()).datagram_udp);
  }
  const UniqueFd nameless(socket(AF_ALG, SOCK_SEQPACKET, 0));
  if (nameless) CHECK_FALSE(FactsOf(nameless.get()).inet);
  const UniqueFd local(socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK_FALSE(FactsOf(local.get()).inet);
  const UniqueFd file(open("/dev/null", O_RDONLY));
  CHECK_FALSE(InspectSocket(file.get(), OwnNetnsCookie()));
  CHECK_FALSE(InspectSocket(-1, OwnNetnsCookie()));
}

TEST_CASE("A socket of another network namespace is not the broker's") {
  TestNetns netns;
  UniqueFd foreign;
  {
    TestNetns other;
    foreign = TcpSocket(AF_INET);
  }
  CHECK_FALSE(FactsOf(foreign.get()).own_netns);
  const UniqueFd own = TcpSocket(AF_INET);
  CHECK(FactsOf(own.get()).own_netns);
  const Result<SocketFacts> unknown = InspectSocket(own.get(), std::nullopt);
  REQUIRE(unknown);
  CHECK_FALSE(unknown->own_netns);
}

TEST_CASE("A pinned socket without an SA cannot connect; cleared it can") {
  TestNetns netns;
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, /*dual=*/true);
  struct Case {
    int domain;
    Family family;
    const char* address;
  };
  for (const Case& c : {Case{AF_INET, Family::kV4, "127.0.0.1"}, Case{AF_INET6, Family::kV6, "::1"},
                        Case{AF_INET6, Family::kV4, "::ffff:127.0.0.1"}}) {
    CAPTURE(c.address);
    const UniqueFd fd = TcpSocket(c.domain);
    const SocketFacts facts = FactsOf(fd.get());
    REQUIRE(SetSocketPolicy(fd.get(), facts, Protect(c.family)));
    CHECK(ConnectTo(fd.get(), c.domain, c.address, port) == EAGAIN);
    REQUIRE(SetSocketPolicy(fd.get(), facts, OfKind(SocketPolicy::Kind::kBlock, c.family)));
    CHECK(ConnectTo(fd.get(), c.domain, c.address, port) == EPERM);
    REQUIRE(SetSocketPolicy(fd.get(), facts, OfKind(SocketPolicy::Kind::kClear, c.family)));
    CHECK(ConnectTo(fd.get(), c.domain, c.address, port) == 0);
  }
}

TEST_CASE("A listener that requires ESP does not answer in clear") {
  TestNetns netns;
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  REQUIRE(SetSocketPolicy(listener.get(), FactsOf(listener.get()),
                          OfKind(SocketPolicy::Kind::kRequireIn, Family::kV4)));
  const UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  CHECK(ConnectTo(client.get(), AF_INET, "127.0.0.1", port) == EINPROGRESS);
  usleep(100'000);
  CHECK(FactsOf(client.get()).tcp_state == 2);  // SYN_SENT
}

TEST_CASE("A policy that could not match its socket is refused") {
  TestNetns netns;
  const UniqueFd fd = TcpSocket(AF_INET);
  const SocketFacts facts = FactsOf(fd.get());
  const Result<void> done = SetSocketPolicy(fd.get(), facts, Protect(Family::kV6));
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kBadRequest);
  CHECK_FALSE(SetSocketPolicy(-1, facts, Protect(Family::kV4)));
}

TEST_CASE("SetMark leaves the other bits") {
  TestNetns netns;
  const UniqueFd fd = TcpSocket(AF_INET);
  REQUIRE(SetSocketMark(fd.get(), FactsOf(fd.get()), 0x51, 0xff));
  REQUIRE(SetSocketMark(fd.get(), FactsOf(fd.get()), 0x80000000, 0x80000000));
  CHECK(FactsOf(fd.get()).mark == 0x80000051);
  REQUIRE(SetSocketMark(fd.get(), FactsOf(fd.get()), 0, 0x80000000));
  CHECK(FactsOf(fd.get()).mark == 0x51);
  CHECK_FALSE(SetSocketMark(-1, SocketFacts{}, 1, 1));
}

TEST_CASE("A UDP socket that gets the guard bit receives datagrams one by one") {
  TestNetns netns;
  const UniqueFd fd(socket(AF_INET6, SOCK_DGRAM, 0));
  const auto merges = [&] {
    int number = -1;
    socklen_t length = sizeof(number);
    REQUIRE(getsockopt(fd.get(), SOL_UDP, UDP_GRO, &number, &length) == 0);
    return number;
  };
  const int one = 1;
  REQUIRE(setsockopt(fd.get(), SOL_UDP, UDP_GRO, &one, sizeof(one)) == 0);
  REQUIRE(SetSocketMark(fd.get(), FactsOf(fd.get()), 0, 0x80000000));
  CHECK(merges() == 1);
  REQUIRE(SetSocketMark(fd.get(), FactsOf(fd.get()), 0x80000000, 0x80000000));
  CHECK(merges() == 0);
}

TEST_CASE("What is on its way can be awaited") { CHECK(AwaitPacketsOnTheWay()); }

TEST_CASE("Source addresses and ports of the kernel's choice") {
  TestNetns netns;
  SourceFinder finder;
  CHECK(finder.Find(*Address::Parse("127.0.0.1"), 0) == Address::Parse("127.0.0.1"));
  CHECK(finder.Find(*Address::Parse("::1"), 0) == Address::Parse("::1"));
  CHECK_FALSE(finder.Find(*Address::Parse("192.0.2.1"), 0));  // no route
  CHECK_FALSE(finder.Find(Address{}, 0));
  // One answer leaves nothing behind for the next.
  REQUIRE(system("ip addr add 10.1.0.1/24 dev lo && ip addr add 10.2.0.1/24 dev lo") == 0);
  for (int i = 0; i < 3; ++i) {
    CHECK(finder.Find(*Address::Parse("10.1.0.9"), 0) == Address::Parse("10.1.0.1"));
    CHECK_FALSE(finder.Find(*Address::Parse("192.0.2.1"), 0));
    CHECK(finder.Find(*Address::Parse("10.2.0.9"), 0) == Address::Parse("10.2.0.1"));
  }
  for (const int domain : {AF_INET, AF_INET6}) {
    const UniqueFd fd = TcpSocket(domain);
    REQUIRE(BindToAny(fd.get(), FactsOf(fd.get())));
    const SocketFacts facts = FactsOf(fd.get());
    CHECK(facts.local.port != 0);
    CHECK(facts.local.address.IsAny());
    CHECK_FALSE(BindToAny(fd.get(), facts));  // bound already
  }
}

TEST_CASE("Whether others may have a socket's port") {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK_FALSE(SharesItsPort(fd.get()));
  const int yes = 1;
  REQUIRE(setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &yes, sizeof(yes)) == 0);
  CHECK(SharesItsPort(fd.get()));
  CHECK(SharesItsPort(-1));
}

TEST_CASE("A link's broadcast address is known as such, whatever its prefix") {
  TestNetns netns;
  SourceFinder finder;
  CHECK_FALSE(finder.IsBroadcast(*Address::Parse("10.9.0.255")));  // no route
  REQUIRE(system("ip link add v0 type veth peer name v1 && ip link set v0 up && "
                 "ip link set v1 up && ip addr add 10.9.0.1/24 dev v0 && "
                 "ip addr add 10.9.4.1/22 dev v0 && ip addr add fd00::1/64 dev v0 nodad && "
                 "ip route add prohibit 10.9.9.0/24") == 0);
  for (int i = 0; i < 2; ++i) {
    CHECK(finder.IsBroadcast(*Address::Parse("10.9.0.255")));
    CHECK(finder.IsBroadcast(*Address::Parse("10.9.7.255")));
    for (const char* one : {"10.9.0.2", "10.9.4.255", "10.9.9.255", "10.9.0.1", "127.0.0.1",
                            "192.0.2.255", "fd00::ff"}) {
      INFO(one);
      CHECK_FALSE(finder.IsBroadcast(*Address::Parse(one)));
    }
    // It has a source address as any other has.
    CHECK(finder.Find(*Address::Parse("10.9.0.255"), 0) == Address::Parse("10.9.0.1"));
    CHECK(finder.Find(*Address::Parse("10.9.0.2"), 0) == Address::Parse("10.9.0.1"));
  }
  CHECK_FALSE(finder.IsBroadcast(Address{}));
}

}  // namespace
}  // namespace latchkey::broker
