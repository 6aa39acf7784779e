#include "tools/latchkeyd/kernel/abort_probe.h"

#include <fcntl.h>
#include <sys/socket.h>

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

}  // namespace
}  // namespace latchkey::broker
