#include "tools/latchkeyd/kernel/datagrams.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <string>

#include "tools/latchkeyd/kernel/test_netns.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

struct Udp {
  UniqueFd fd;
  sockaddr_in name{};

  Udp() : fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(name);
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&name), length) == 0);
    REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length) == 0);
  }
  void Send(const Udp& to, const std::string& text, int flags = 0) const {
    REQUIRE(sendto(fd.get(), text.data(), text.size(), flags,
                   reinterpret_cast<const sockaddr*>(&to.name),
                   sizeof(to.name)) == static_cast<ssize_t>(text.size()));
  }
  // What is there, "" when nothing is; the errno of another failure.
  std::string Read() const {
    char text[64];
    const ssize_t size = recv(fd.get(), text, sizeof(text), MSG_DONTWAIT);
    if (size < 0) return errno == EAGAIN ? "" : std::to_string(errno);
    return {text, static_cast<size_t>(size)};
  }
  SocketAddress Address() const {
    return {latchkey::Address::Parse("127.0.0.1").value(), ntohs(name.sin_port)};
  }
};

TEST_CASE("What a socket has received is thrown away, all of it, and what comes later stays") {
  const TestNetns netns;
  const Udp us;
  const Udp other;
  for (int i = 0; i < 100; ++i) other.Send(us, "early");
  other.Send(us, "");
  DrainDatagrams(us.fd.get());
  CHECK(us.Read().empty());
  other.Send(us, "late");
  CHECK(us.Read() == "late");
}

TEST_CASE("Once connected, nobody else's datagrams are left, or come in") {
  const TestNetns netns;
  const Udp us;
  const Udp peer;
  const Udp other;
  other.Send(us, "before");
  peer.Send(us, "before too");
  ConnectAndDrain(us.fd.get(), /*v6_socket=*/false, peer.Address(), 0);
  other.Send(us, "after");
  peer.Send(us, "peer's");
  CHECK(us.Read() == "peer's");
  CHECK(us.Read().empty());
}

TEST_CASE("A pending error of the peer before goes too") {
  const TestNetns netns;
  const Udp us;
  const Udp peer;
  {
    const Udp gone;
    ConnectAndDrain(us.fd.get(), /*v6_socket=*/false, gone.Address(), 0);
  }
  REQUIRE(send(us.fd.get(), "x", 1, 0) == 1);  // refused by ICMP
  peer.Send(us, "not of the connection's");
  ConnectAndDrain(us.fd.get(), /*v6_socket=*/false, peer.Address(), 0);
  CHECK(us.Read().empty());
}

TEST_CASE("What is kept back for more leaves, and the socket goes on keeping back") {
  const TestNetns netns;
  const Udp us;
  const Udp peer;
  us.Send(peer, "half", MSG_MORE);
  CHECK(peer.Read().empty());
  PushOutDatagrams(us.fd.get());
  CHECK(peer.Read() == "half");
  const int on = 1;
  REQUIRE(setsockopt(us.fd.get(), IPPROTO_UDP, UDP_CORK, &on, sizeof(on)) == 0);
  us.Send(peer, "more");
  PushOutDatagrams(us.fd.get());
  CHECK(peer.Read() == "more");
  int corked = 0;
  socklen_t length = sizeof(corked);
  REQUIRE(getsockopt(us.fd.get(), IPPROTO_UDP, UDP_CORK, &corked, &length) == 0);
  CHECK(corked == 1);
}

TEST_CASE("A socket that is shut down ends the calls that wait") {
  const TestNetns netns;
  const Udp us;
  REQUIRE(ShutDownDatagrams(us.fd.get()).has_value());
  char octet = 0;
  CHECK(recv(us.fd.get(), &octet, 1, 0) == 0);
  CHECK(send(us.fd.get(), &octet, 1, MSG_NOSIGNAL) < 0);
}

}  // namespace
}  // namespace latchkey::broker
