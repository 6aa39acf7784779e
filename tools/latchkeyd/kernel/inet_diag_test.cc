#include "tools/latchkeyd/kernel/inet_diag.h"

#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>

#include "tools/latchkeyd/kernel/socket_ops.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

const LiveSocket* Find(const std::vector<LiveSocket>& sockets, int fd) {
  const auto it = std::ranges::find(sockets, *CookieOf(fd), &LiveSocket::cookie);
  return it == sockets.end() ? nullptr : &*it;
}

TEST_CASE("Listeners and connections of both families are listed by cookie") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  for (const int domain : {AF_INET, AF_INET6}) {
    const TcpPair pair = MakeTcpPair(domain);
    const UniqueFd unused = TcpSocket(domain);
    const UniqueFd waiting = TcpSocket(domain);
    const SocketFacts listener = *InspectSocket(pair.listener.get(), std::nullopt);
    REQUIRE(ConnectTo(waiting.get(), domain, domain == AF_INET ? "127.0.0.1" : "::1",
                      listener.local.port) == 0);
    const Result<std::vector<LiveSocket>> sockets = diag->ListSockets();
    REQUIRE(sockets);
    const LiveSocket* found = Find(*sockets, pair.listener.get());
    REQUIRE(found);
    CHECK(found->tcp_state == 10);
    CHECK(found->queued == 1);
    CHECK(found->local == listener.local);
    CHECK(found->remote.address.family == Family::kNone);
    found = Find(*sockets, pair.server.get());
    REQUIRE(found);
    CHECK(found->tcp_state == 1);
    CHECK(found->queued == 0);
    const SocketFacts client = *InspectSocket(pair.client.get(), std::nullopt);
    CHECK(found->remote == client.local);
    CHECK(found->local == client.remote);
    CHECK(Find(*sockets, unused.get()) == nullptr);
  }
}

TEST_CASE("A v4-mapped connection is listed as IPv4, and destroyed so") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  const UniqueFd listener = TcpSocket(AF_INET6);
  const uint16_t port = ListenOn(listener.get(), AF_INET6, /*dual=*/true);
  const UniqueFd client = TcpSocket(AF_INET6);
  REQUIRE(ConnectTo(client.get(), AF_INET6, "::ffff:127.0.0.1", port) == 0);
  const Result<std::vector<LiveSocket>> sockets = diag->ListSockets();
  REQUIRE(sockets);
  const LiveSocket* found = Find(*sockets, client.get());
  REQUIRE(found);
  CHECK(found->remote == SocketAddress{*Address::Parse("127.0.0.1"), port});
  const Flow flow{Direction::kOut, kProtocolTcp, found->local, found->remote};
  REQUIRE(diag->Destroy(found->cookie, flow));
  char octet;
  CHECK(recv(client.get(), &octet, 1, 0) == -1);
  CHECK(errno == ECONNABORTED);
}

TEST_CASE("UDP sockets without a peer are listed where they bear a mark") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  for (const int domain : {AF_INET, AF_INET6}) {
    const UniqueFd marked(socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const UniqueFd free(socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const UniqueFd unbound(socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    REQUIRE(SetSocketMark(marked.get(), {}, 0x80000000, 0xffff0000));
    SocketFacts facts = *InspectSocket(marked.get(), std::nullopt);
    REQUIRE(BindToAny(marked.get(), facts));
    REQUIRE(BindToAny(free.get(), *InspectSocket(free.get(), std::nullopt)));
    facts = *InspectSocket(marked.get(), std::nullopt);
    const Result<std::vector<LiveSocket>> sockets = diag->ListSockets();
    REQUIRE(sockets);
    const LiveSocket* found = Find(*sockets, marked.get());
    REQUIRE(found);
    CHECK(found->protocol == kProtocolUdp);
    CHECK(found->tcp_state == 7);
    CHECK(found->mark == 0x80000000);
    CHECK(found->local == facts.local);
    CHECK(found->remote.address.family == Family::kNone);
    CHECK(Find(*sockets, free.get()) == nullptr);
    const Result<std::unordered_set<uint64_t>> cookies = diag->ListDatagramCookies();
    REQUIRE(cookies);
    CHECK(cookies->contains(*CookieOf(marked.get())));
    CHECK(cookies->contains(*CookieOf(free.get())));
    CHECK_FALSE(cookies->contains(*CookieOf(unbound.get())));
  }
}

TEST_CASE("Destroy goes by the cookie, whatever the addresses say") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  const TcpPair pair = MakeTcpPair();
  const TcpPair bystander = MakeTcpPair();
  const SocketFacts facts = *InspectSocket(bystander.client.get(), std::nullopt);
  const Flow wrong{Direction::kOut, kProtocolTcp, facts.local, facts.remote};
  REQUIRE(diag->Destroy(*CookieOf(pair.client.get()), wrong));
  char octet;
  CHECK(recv(pair.client.get(), &octet, 1, 0) == -1);
  CHECK(errno == ECONNABORTED);
  CHECK(send(bystander.client.get(), "x", 1, MSG_NOSIGNAL) == 1);
  CHECK(recv(bystander.server.get(), &octet, 1, 0) == 1);

  const Result<void> again = diag->Destroy(*CookieOf(pair.client.get()), Flow{});
  REQUIRE_FALSE(again);
  CHECK(again.error().reason == Reason::kClosed);
  CHECK_FALSE(diag->Destroy(0, Flow{}));
}

TEST_CASE("Malformed answers are not sockets") {
  const std::vector<uint8_t> zeros(200);
  for (size_t size = 0; size <= zeros.size(); ++size) {
    CHECK_FALSE(ParseDiag(std::span(zeros).first(size)));
  }
}

}  // namespace
}  // namespace latchkey::broker
