#include "tools/latchkeyd/kernel/fence.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/fence_fixture.h"

namespace latchkey::broker {
namespace {

// An empty UDP datagram with an IP header of our own.
int SendPacket(int fd, const std::string& address) {
  sockaddr_storage name{};
  const socklen_t length = ToSockaddr(At(address, 0), false, 0, &name);
  unsigned char packet[28] = {0x45, 0, 0, sizeof(packet), 0, 0, 0, 0, 64, IPPROTO_UDP};
  std::memcpy(packet + 16, At(address, 0).address.octets.data(), 4);
  packet[23] = 9;  // the port of "discard"
  packet[25] = 8;  // the length
  const ssize_t sent =
      sendto(fd, packet, sizeof(packet), 0, reinterpret_cast<sockaddr*>(&name), length);
  return sent == sizeof(packet) ? 0 : errno;
}

TEST_CASE_METHOD(FenceFixture, "without rules nothing passes") {
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  CHECK(ConnectTo(Tcp().get(), "127.0.0.1", port) == EPERM);
  CHECK(SendTo(Udp().get(), "127.0.0.1", 9) == EPERM);
  CHECK_FALSE(program.Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

TEST_CASE_METHOD(FenceFixture, "an undecided connect fails, and is counted and named") {
  Use();
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  CHECK(ConnectTo(Tcp().get(), "127.0.0.1", port) == EPERM);
  CHECK(ConnectTo(Tcp(AF_INET6).get(), "::ffff:127.0.0.1", port, true) == EPERM);
  const std::vector<FenceStop> stops = fence.TakeStops();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].fence == kFence);
  CHECK(stops[0].kind == FenceStop::Kind::kConnect);
  CHECK(stops[0].count == 2);
  CHECK(stops[0].protocol == IPPROTO_TCP);
  CHECK(stops[0].remote == At("127.0.0.1", port));
  CHECK(fence.TakeStops().empty());
}

TEST_CASE_METHOD(FenceFixture,
                 "data with the SYN are an undecided connect's, and nobody gets them") {
  Use();
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  sockaddr_storage name{};
  const socklen_t length = ToSockaddr(At("127.0.0.1", port), false, 0, &name);
  const auto send_open = [&](int fd) {
    return sendto(fd, "x", 1, MSG_FASTOPEN, reinterpret_cast<sockaddr*>(&name), length);
  };
  CHECK(send_open(Tcp().get()) == -1);
  CHECK(errno == EPERM);
  CHECK(Stopped(FenceStop::Kind::kConnect) == 1);
  REQUIRE(fcntl(listener.get(), F_SETFL, O_NONBLOCK) == 0);
  CHECK(accept(listener.get(), nullptr, nullptr) == -1);
  CHECK(errno == EAGAIN);
  // Outside of the fence it goes.
  CHECK(send_open(TcpSocket(AF_INET).get()) == 1);
}

TEST_CASE_METHOD(FenceFixture, "what the rules bypass passes, first match first") {
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, true);
  Rule("127.0.0.1/32", Settle::kProtect);
  Rule("127.0.0.0/29", Settle::kBypass, port, port, IPPROTO_TCP);
  Rule("::1/128", Settle::kBypass);
  Use();
  CHECK(ConnectTo(Tcp().get(), "127.0.0.1", port) == EPERM);
  const UniqueFd passed = Tcp();
  REQUIRE(ConnectTo(passed.get(), "127.0.0.2", port) == 0);
  CHECK(ConnectTo(Tcp().get(), "127.0.0.8", port) == EPERM);
  const UniqueFd datagrams = Udp();
  CHECK(ConnectTo(datagrams.get(), "127.0.0.2", port) == 0);  // sends nothing yet
  CHECK(send(datagrams.get(), "x", 1, 0) == -1);
  CHECK(errno == EPERM);
  CHECK(Stopped(FenceStop::Kind::kOut) == 1);
  CHECK(ConnectTo(Tcp(AF_INET6).get(), "::ffff:127.0.0.2", port, true) == 0);
  CHECK(ConnectTo(Tcp(AF_INET6).get(), "::1", port, true) == 0);
  CHECK(ConnectTo(Tcp().get(), "127.0.0.2", static_cast<uint16_t>(port + 1)) == EPERM);
  // Decided once: what stands goes on standing.
  page->rule_count = 0;
  Use();
  CHECK(send(passed.get(), "on", 2, 0) == 2);
  const UniqueFd child(accept(listener.get(), nullptr, nullptr));
  pollfd data{child.get(), POLLIN, 0};
  REQUIRE(poll(&data, 1, 5000) == 1);
  CHECK(Take(child.get()) == "on");
  CHECK(Stopped(FenceStop::Kind::kOut) == 0);
}

TEST_CASE_METHOD(FenceFixture, "to \"any\" is to loopback, as the kernel takes it") {
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, true);
  const TestUdp other("127.0.0.1");
  CHECK(ConnectTo(Tcp().get(), "0.0.0.0", port) == EPERM);
  Rule("127.0.0.1/32", Settle::kBypass);
  Rule("::1/128", Settle::kBypass);
  Use();
  const UniqueFd socket = Tcp();
  REQUIRE(ConnectTo(socket.get(), "0.0.0.0", port) == 0);
  CHECK(send(socket.get(), "x", 1, 0) == 1);
  CHECK(ConnectTo(Tcp(AF_INET6).get(), "::", port, true) == 0);
  CHECK(ConnectTo(Tcp(AF_INET6).get(), "::ffff:0.0.0.0", port, true) == 0);
  CHECK(SendTo(Udp().get(), "0.0.0.0", other.port()) == 0);
  CHECK(other.Take() == "x");
  // Decided, it is the same place.
  page->rule_count = 0;
  Use();
  const UniqueFd decided = Tcp();
  REQUIRE(fence.Decide(decided.get(), {Kind::kFlow, At("0.0.0.0", port)}));
  CHECK(ConnectTo(decided.get(), "0.0.0.0", port) == 0);
  CHECK(send(decided.get(), "x", 1, 0) == 1);
  CHECK(Stopped(FenceStop::Kind::kOut) == 0);
}

TEST_CASE_METHOD(FenceFixture, "a decided socket reaches its place and no other") {
  Use();
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, true);
  const UniqueFd socket = Tcp();
  REQUIRE(fence.Decide(socket.get(), {Kind::kFlow, At("127.0.0.2", port)}));
  CHECK(ConnectTo(socket.get(), "127.0.0.3", port) == EPERM);
  REQUIRE(ConnectTo(socket.get(), "127.0.0.2", port) == 0);
  CHECK(send(socket.get(), "x", 1, 0) == 1);

  const UniqueFd forgotten = Tcp();
  REQUIRE(fence.Decide(forgotten.get(), {Kind::kFlow, At("127.0.0.2", port)}));
  fence.Forget(forgotten.get());
  CHECK(ConnectTo(forgotten.get(), "127.0.0.2", port) == EPERM);
}

TEST_CASE_METHOD(FenceFixture, "what was to stay within the host does not leave it") {
  Use();
  // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread
  REQUIRE(
      std::system(
          "ip link add wan type veth peer name far && ip link set far up && ip link set wan up && "
          "ip address add 10.9.0.1/24 dev wan && ip address add fd00::1/64 dev wan nodad") == 0);
  const uint32_t wan = if_nametoindex("wan");
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, true);
  for (const std::string own : {"10.9.0.1", "fd00::1"}) {
    const bool v6 = own[0] == 'f';
    const UniqueFd here = Tcp(v6 ? AF_INET6 : AF_INET);
    REQUIRE(fence.Decide(here.get(), {Kind::kHost, At(own, port)}));
    CHECK(ConnectTo(here.get(), v6 ? "fd00::2" : "10.9.0.2", port, v6) == EPERM);
    REQUIRE(ConnectTo(here.get(), own, port, v6) == 0);
    CHECK(send(here.get(), "x", 1, 0) == 1);
  }
  CHECK(Stopped(FenceStop::Kind::kOut) == 0);
  for (const std::string other : {"10.9.0.2", "fd00::2"}) {
    const bool v6 = other[0] == 'f';
    const UniqueFd away = Udp(v6 ? AF_INET6 : AF_INET);
    REQUIRE(fence.Decide(away.get(), {Kind::kHost, At(other, 9)}));
    REQUIRE(ConnectTo(away.get(), other, 9, v6) == 0);
    CHECK(send(away.get(), "x", 1, 0) == -1);
    CHECK(errno == EPERM);
    REQUIRE(fence.Decide(away.get(), {Kind::kHost, At(other, 9), wan}));
    CHECK(send(away.get(), "x", 1, 0) == 1);
  }
  CHECK(Stopped(FenceStop::Kind::kOut) == 2);
}

TEST_CASE_METHOD(FenceFixture, "where no rule is about who comes a listener needs no decision") {
  Use();
  const UniqueFd listener = Tcp();
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  const UniqueFd early = TcpSocket(AF_INET);
  REQUIRE(ConnectTo(early.get(), "127.0.0.1", port) == 0);
  const UniqueFd child(accept(listener.get(), nullptr, nullptr));
  REQUIRE(child);
  // What has come goes on, whatever the rules say later; so do those that come to it.
  incoming.connections = true;
  Use();
  CHECK(send(child.get(), "x", 1, 0) == 1);
  CHECK(ConnectTo(TcpSocket(AF_INET).get(), "127.0.0.1", port) == 0);
  CHECK(Stopped(FenceStop::Kind::kIn) == 0);
  CHECK(Stopped(FenceStop::Kind::kOut) == 0);
}

TEST_CASE_METHOD(FenceFixture,
                 "nobody reaches a listener before it is decided, where a rule says who") {
  // What is begun here may go anywhere: that says nothing of who comes.
  page->otherwise = Settle::kBypass;
  incoming.connections = true;
  Use();
  const UniqueFd listener = Tcp();
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  const UniqueFd client = TcpSocket(AF_INET);
  REQUIRE(fcntl(client.get(), F_SETFL, O_NONBLOCK) == 0);
  REQUIRE(ConnectTo(client.get(), "127.0.0.1", port) == EINPROGRESS);
  // Loopback delivers within the call: what was dropped is counted by now.
  CHECK(Stopped(FenceStop::Kind::kIn) == 1);

  REQUIRE(fence.Decide(listener.get(), {Kind::kPassive, {}}));
  const UniqueFd other = TcpSocket(AF_INET);
  REQUIRE(ConnectTo(other.get(), "127.0.0.1", port) == 0);
  // The child is its listener's: it takes in before anybody has accepted it.
  REQUIRE(send(other.get(), "early", 5, 0) == 5);
  const UniqueFd child(accept(listener.get(), nullptr, nullptr));
  REQUIRE(child);
  pollfd data{child.get(), POLLIN, 0};
  REQUIRE(poll(&data, 1, 5000) == 1);
  CHECK(Take(child.get()) == "early");
  CHECK(send(child.get(), "x", 1, 0) == 1);
  CHECK(Stopped(FenceStop::Kind::kOut) == 0);

  // But it begins nothing of its own.
  page->otherwise = Settle::kProtect;
  Use();
  const UniqueFd outside = TcpSocket(AF_INET);
  const uint16_t away = ListenOn(outside.get(), AF_INET);
  const sockaddr unspecified{AF_UNSPEC, {}};
  REQUIRE(connect(child.get(), &unspecified, sizeof(unspecified)) == 0);
  CHECK(ConnectTo(child.get(), "127.0.0.1", away) == EPERM);
}

TEST_CASE_METHOD(FenceFixture,
                 "sockets of other kinds are not made, unless there is nothing to refuse") {
  Use();
  CHECK_FALSE(program.Socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
  CHECK(program.error == EPERM);
  CHECK_FALSE(program.Socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6));
  CHECK_FALSE(program.Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
  CHECK(program.error == EPERM);
  CHECK(Stopped(FenceStop::Kind::kSocket) == 3);
  CHECK(program.Socket(AF_UNIX, SOCK_STREAM));
  // A kernel without MPTCP says so by itself.
  const UniqueFd outside(socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP));
  const int lacking = outside ? 0 : errno;
  CHECK_FALSE(program.Socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP));
  CHECK(program.error == (outside ? EPERM : lacking));
  CHECK(Stopped(FenceStop::Kind::kSocket) == (outside ? 1 : 0));

  // Nor where a rule stands in the way of a single place, or of what comes in.
  page->otherwise = Settle::kBypass;
  Rule("10.0.0.0/8", Settle::kProtect);
  Use();
  CHECK_FALSE(program.Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
  page->rule_count = 0;
  incoming.datagrams = true;
  Use();
  CHECK_FALSE(program.Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
  incoming.datagrams = false;
  Rule("10.0.0.0/8", Settle::kBypass);
  Use();
  CHECK(program.Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));

  page->flags = wire::kPageNoRules;
  Use();
  const UniqueFd raw = program.Socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  REQUIRE(raw);
  // What it sends has headers of its own, for whatever protocol.
  CHECK(SendPacket(raw.get(), "127.0.0.1") == 0);
  const UniqueFd listener = Tcp();
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  CHECK(ConnectTo(Tcp().get(), "127.0.0.1", port) == 0);
}

TEST_CASE_METHOD(FenceFixture, "what is outside of the fence does not feel it") {
  Use();
  const UniqueFd listener = TcpSocket(AF_INET);
  const uint16_t port = ListenOn(listener.get(), AF_INET);
  CHECK(ConnectTo(TcpSocket(AF_INET).get(), "127.0.0.1", port) == 0);
  CHECK(fence.Enclose(kFence, program.pid()).error().reason == Reason::kBadRequest);
  CHECK_FALSE(fence.Release(kFence));
}

TEST_CASE("a process that is gone cannot be enclosed") {
  const TestNetns netns;
  Fence fence("");
  FencedProgram program;
  const int pid = program.pid();
  program.End();
  CHECK_FALSE(fence.Enclose(kFence, pid));
  CHECK(fence.Fences().empty());
}

}  // namespace
}  // namespace latchkey::broker
