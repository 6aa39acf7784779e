#include "tools/latchkeyd/kernel/abort_probe.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>

#include "tools/latchkeyd/kernel/socket_ops.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

int ReceiveError(int fd) {
  char octet;
  return recv(fd, &octet, 1, MSG_DONTWAIT) < 0 ? errno : 0;
}

TEST_CASE("The probe finds what the kernel has, with loopback up or down") {
  for (const bool loopback : {true, false}) {
    TestNetns netns(loopback);
    Result<InetDiag> diag = InetDiag::Open();
    REQUIRE(diag);
    const Result<AbortMeans> means = ProbeAbortMeans(*diag);
    REQUIRE(means);
    CHECK(means->disconnect);
    CHECK(means->destroy);
  }
}

TEST_CASE("An aborted connection errs at the program, by either means") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  for (const bool destroy : {true, false}) {
    const TcpPair pair = MakeTcpPair();
    const SocketFacts facts = *InspectSocket(pair.client.get(), std::nullopt);
    const SocketHint hint{facts.cookie, facts.inode, 0, -1};
    const Flow flow{Direction::kOut, kProtocolTcp, facts.local, facts.remote};
    const UniqueFd copy(fcntl(pair.client.get(), F_DUPFD_CLOEXEC, 0));
    REQUIRE(AbortSocket(*diag, AbortMeans{destroy, true}, hint, copy.get(), flow));
    CHECK(ReceiveError(pair.client.get()) == (destroy ? ECONNABORTED : ECONNRESET));
  }
}

TEST_CASE("Without a descriptor only SOCK_DESTROY is left; a wrong descriptor is not touched") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  const TcpPair pair = MakeTcpPair();
  const TcpPair bystander = MakeTcpPair();
  const SocketFacts facts = *InspectSocket(pair.server.get(), std::nullopt);
  const SocketHint hint{facts.cookie, facts.inode, 0, -1};
  const Flow flow{Direction::kIn, kProtocolTcp, facts.local, facts.remote};
  CHECK_FALSE(AbortSocket(*diag, AbortMeans{false, true}, hint, -1, flow));
  CHECK_FALSE(AbortSocket(*diag, AbortMeans{false, true}, hint, bystander.client.get(), flow));
  CHECK(ReceiveError(bystander.client.get()) == EAGAIN);
  CHECK(ReceiveError(pair.server.get()) == EAGAIN);
  REQUIRE(AbortSocket(*diag, AbortMeans{true, false}, hint, -1, flow));
  CHECK(ReceiveError(pair.server.get()) == ECONNABORTED);
}

struct Datagrams {
  UniqueFd us;
  UniqueFd peer;
  SocketFacts facts;
  Flow flow;

  Datagrams() : us(Bound()), peer(Bound()) {
    sockaddr_in name{};
    socklen_t length = sizeof(name);
    REQUIRE(getsockname(peer.get(), reinterpret_cast<sockaddr*>(&name), &length) == 0);
    REQUIRE(connect(us.get(), reinterpret_cast<sockaddr*>(&name), length) == 0);
    facts = *InspectSocket(us.get(), std::nullopt);
    flow = Flow{Direction::kOut, kProtocolUdp, facts.local, facts.remote};
  }
  static UniqueFd Bound() {
    UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0);
    return fd;
  }
  SocketHint Hint() const { return {facts.cookie, facts.inode, 0, -1}; }
};

TEST_CASE("Datagrams: listed while connected, and an aborted socket errs and stays its peer's") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  const Datagrams udp;
  const auto listed = [&] {
    const auto live = *diag->ListSockets();
    return std::ranges::find(live, udp.facts.cookie, &LiveSocket::cookie) != live.end();
  };
  CHECK(listed());
  CHECK_FALSE(AbortSocket(*diag, AbortMeans{true, true}, udp.Hint(), udp.peer.get(), udp.flow));
  REQUIRE(AbortSocket(*diag, AbortMeans{true, true}, udp.Hint(), udp.us.get(), udp.flow));
  CHECK(ReceiveError(udp.us.get()) == ECONNABORTED);
  CHECK(InspectSocket(udp.us.get(), std::nullopt)->remote == udp.facts.remote);
  CHECK_FALSE(InspectSocket(udp.us.get(), std::nullopt)->shut_down);
  CHECK(listed());
}

TEST_CASE("Datagrams: shut down where the kernel cannot destroy") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  const Datagrams udp;
  REQUIRE(AbortSocket(*diag, AbortMeans{false, true}, udp.Hint(), udp.us.get(), udp.flow));
  char octet = 0;
  CHECK(recv(udp.us.get(), &octet, 1, 0) == 0);
  CHECK(InspectSocket(udp.us.get(), std::nullopt)->shut_down);
  CHECK(InspectSocket(udp.us.get(), std::nullopt)->remote == udp.facts.remote);
}

TEST_CASE("Datagrams: a socket out of reach keeps its connection; one that is gone is said to be") {
  TestNetns netns;
  Result<InetDiag> diag = InetDiag::Open();
  REQUIRE(diag);
  Datagrams udp;
  const Result<void> away = AbortSocket(*diag, AbortMeans{true, true}, udp.Hint(), -1, udp.flow);
  REQUIRE_FALSE(away);
  CHECK(away.error().reason == Reason::kUnsupported);
  CHECK(InspectSocket(udp.us.get(), std::nullopt)->remote == udp.facts.remote);
  udp.us = UniqueFd();
  const Result<void> gone = AbortSocket(*diag, AbortMeans{true, true}, udp.Hint(), -1, udp.flow);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().reason == Reason::kClosed);
}

}  // namespace
}  // namespace latchkey::broker
