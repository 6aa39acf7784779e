// The fence around UDP sockets.
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/fence_fixture.h"

namespace latchkey::broker {
namespace {

TEST_CASE_METHOD(FenceFixture, "datagrams go where the rules bypass, and come from there") {
  const TestUdp name_server("127.0.0.53");
  const TestUdp stranger("127.0.0.9");
  Rule("127.0.0.53/32", Settle::kBypass, name_server.port(), name_server.port(), IPPROTO_UDP);
  Use();
  const UniqueFd socket = Udp();
  const uint16_t port = Bind(socket.get(), "127.0.0.1");
  CHECK(SendTo(socket.get(), "127.0.0.9", stranger.port()) == EPERM);
  CHECK(SendTo(socket.get(), "127.0.0.53", name_server.port()) == 0);
  CHECK(name_server.Take() == "x");
  CHECK(SendTo(name_server.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "x");
  CHECK(SendTo(stranger.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "-");
  const std::vector<FenceStop> stops = fence.TakeStops();
  REQUIRE(stops.size() == 2);
  CHECK(stops[0].kind == FenceStop::Kind::kSend);
  CHECK(stops[1].kind == FenceStop::Kind::kIn);
  CHECK(stops[1].remote == At("127.0.0.9", stranger.port()));

  // Connected by libc, as its resolver does.
  const UniqueFd connected = Udp();
  REQUIRE(ConnectTo(connected.get(), "127.0.0.53", name_server.port()) == 0);
  CHECK(send(connected.get(), "y", 1, 0) == 1);
  CHECK(name_server.Take() == "y");
  // An address besides does not go round it, and v4-mapped is v4.
  CHECK(SendTo(connected.get(), "127.0.0.9", stranger.port()) == EPERM);
  CHECK(SendTo(Udp(AF_INET6).get(), "::ffff:127.0.0.9", stranger.port(), true) == EPERM);
  CHECK(SendTo(Udp(AF_INET6).get(), "::ffff:127.0.0.53", name_server.port(), true) == 0);
  CHECK(stranger.Take() == "-");
}

TEST_CASE_METHOD(FenceFixture,
                 "with a rule about what comes in an unconnected socket waits to be asked about") {
  const TestUdp other("127.0.0.53");
  page->otherwise = Settle::kBypass;
  incoming.datagrams = true;
  Use();
  const UniqueFd socket = Udp();
  const uint16_t port = Bind(socket.get(), "127.0.0.1");
  REQUIRE(SendTo(other.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "-");
  REQUIRE(fence.Decide(socket.get(), {Kind::kClear, {}}));
  REQUIRE(SendTo(other.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "x");
}

TEST_CASE_METHOD(FenceFixture, "a socket in clear keeps to the rules, and to its place") {
  const TestUdp granted("127.0.0.5");
  const TestUdp other("127.0.0.6");
  Use();
  const UniqueFd socket = Udp();
  const uint16_t port = Bind(socket.get(), "127.0.0.1");
  REQUIRE(fence.Decide(socket.get(), {Kind::kClear, At("127.0.0.5", granted.port())}));
  CHECK(SendTo(socket.get(), "127.0.0.5", granted.port()) == 0);
  CHECK(SendTo(socket.get(), "127.0.0.6", other.port()) == EPERM);
  CHECK(SendTo(granted.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "x");
  // Of what comes in no rule speaks.
  CHECK(SendTo(other.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "x");
}

TEST_CASE_METHOD(FenceFixture, "a held socket is the kernel's to judge") {
  const TestUdp other("127.0.0.5");
  Use();
  const UniqueFd socket = Udp();
  const uint16_t port = Bind(socket.get(), "127.0.0.1");
  REQUIRE(fence.Decide(socket.get(), {Kind::kHeld, {}}));
  CHECK(SendTo(socket.get(), "127.0.0.5", other.port()) == 0);
  CHECK(SendTo(other.fd(), "127.0.0.1", port) == 0);
  CHECK(Take(socket.get()) == "x");
}

TEST_CASE_METHOD(FenceFixture, "where the SPD asks for something single datagrams are its") {
  const TestUdp other("127.0.0.5");
  page->otherwise = Settle::kAsk;
  Use();
  CHECK(SendTo(Udp().get(), "127.0.0.5", other.port()) == 0);
  const UniqueFd connected = Udp();
  CHECK(ConnectTo(connected.get(), "127.0.0.5", other.port()) == 0);
  CHECK(send(connected.get(), "x", 1, 0) == -1);
  page->flags = wire::kPageDenyDatagrams;
  Use();
  CHECK(SendTo(Udp().get(), "127.0.0.5", other.port()) == EPERM);
}

}  // namespace
}  // namespace latchkey::broker
