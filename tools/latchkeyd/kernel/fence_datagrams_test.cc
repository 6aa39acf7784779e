// The fence around UDP sockets.
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/fence_fixture.h"
#include "tools/latchkeyd/kernel/test_device.h"

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

// A held socket with these regions, and what it may send by another device than loopback.
struct Held : FenceFixture {
  using Need = DatagramRegion::Need;

  TestDevice device;

  Held() { Use(); }
  void Hold(int fd, const std::vector<DatagramRegion>& regions) {
    REQUIRE(filter.Filter(fd, CookieOf(fd).value(), regions));
    REQUIRE(fence.Decide(fd, {Kind::kHeld, {}}));
  }
  static DatagramRegion Region(const std::string& prefix, Need need, uint16_t port = 0) {
    return {Prefix::Parse(prefix).value(), port, need};
  }
  // 0, or the errno of a send that let nothing out.
  int Send(int fd, const std::string& address, uint16_t port, bool v6 = false, size_t size = 5) {
    sockaddr_storage name{};
    const socklen_t length = ToSockaddr(At(address, port), v6, 0, &name);
    const auto* to = reinterpret_cast<const sockaddr*>(&name);
    const std::string text = "clear" + std::string(size - 5, '.');
    const int error = sendto(fd, text.data(), size, 0, to, length) < 0 ? errno : 0;
    CHECK(device.Count("clear") == (error == 0 ? 1 : 0));
    return error;
  }
};

TEST_CASE_METHOD(Held, "what a held socket sends in clear goes where it was let send, only") {
  const UniqueFd socket = Udp();
  Hold(socket.get(), {});
  CHECK(Send(socket.get(), "10.77.0.9", 53) == EPERM);
  const std::vector<FenceStop> stops = fence.TakeStops();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].kind == FenceStop::Kind::kOut);
  CHECK(stops[0].protocol == IPPROTO_UDP);
  CHECK(stops[0].remote == At("10.77.0.9", 53));
  DatagramRegion some = Region("10.77.0.16/28", Need::kPass);
  some.but = {{54, 55}};
  Hold(socket.get(), {Region("10.77.0.0/24", Need::kTag), Region("10.77.0.9/32", Need::kPass, 53),
                      Region("10.77.0.8/32", Need::kDrop), some});
  CHECK(Send(socket.get(), "10.77.0.9", 53) == 0);
  CHECK(Send(socket.get(), "10.77.0.9", 54) == EPERM);
  CHECK(Send(socket.get(), "10.77.0.8", 53) == EPERM);
  CHECK(Send(socket.get(), "10.77.0.17", 53) == 0);
  CHECK(Send(socket.get(), "10.77.0.17", 54) == EPERM);
  // Whole or not at all: the first piece alone has the ports.
  CHECK(Send(socket.get(), "10.77.0.9", 53, false, 4000) == 0);
  CHECK(Send(socket.get(), "10.77.0.9", 54, false, 4000) == EPERM);
  filter.Forget(CookieOf(socket.get()).value());
  CHECK(Send(socket.get(), "10.77.0.9", 53) == EPERM);
  // To its own host it goes, as nothing is protected there.
  const TestUdp other("10.77.0.1");
  CHECK(SendTo(socket.get(), "10.77.0.1", other.port()) == 0);
  CHECK(other.Take() == "x");
}

TEST_CASE_METHOD(Held, "so does what one of IPv6 sends, v4-mapped or with headers of its own") {
  const UniqueFd socket = Udp(AF_INET6);
  Hold(socket.get(), {Region("fd00:77::/64", Need::kPass), Region("fd00:77::8/128", Need::kTag),
                      Region("10.77.0.0/24", Need::kTag), Region("10.77.0.9/32", Need::kPass)});
  const auto check = [&] {
    CHECK(Send(socket.get(), "fd00:77::9", 53, true) == 0);
    CHECK(Send(socket.get(), "fd00:77::8", 53, true) == EPERM);
    CHECK(Send(socket.get(), "fd00:77::8", 53, true, 4000) == EPERM);
  };
  check();
  CHECK(Send(socket.get(), "::ffff:10.77.0.9", 53, true) == 0);
  CHECK(Send(socket.get(), "::ffff:10.77.0.8", 53, true) == EPERM);
  const unsigned char padding[8] = {0, 0, 1, 4};
  REQUIRE(setsockopt(socket.get(), IPPROTO_IPV6, IPV6_DSTOPTS, padding, sizeof(padding)) == 0);
  check();
  REQUIRE(setsockopt(socket.get(), IPPROTO_IPV6, IPV6_HOPOPTS, padding, sizeof(padding)) == 0);
  check();
}

TEST_CASE_METHOD(Held, "a connected socket that is latched sends nothing in clear") {
  const UniqueFd socket = Udp();
  Hold(socket.get(), {Region("10.77.0.0/24", Need::kPass)});
  REQUIRE(fence.Decide(socket.get(), {Kind::kLatched, {}}));
  CHECK(Send(socket.get(), "10.77.0.8", 53) == EPERM);
  REQUIRE(ConnectTo(socket.get(), "10.77.0.9", 53) == 0);
  CHECK(send(socket.get(), "clear", 5, 0) == -1);
  CHECK(errno == EPERM);
  CHECK(device.Count("clear") == 0);
  // A latch in clear is its own policy's to hold.
  REQUIRE(fence.Decide(socket.get(), {Kind::kLatched, At("10.77.0.9", 53)}));
  CHECK(Send(socket.get(), "10.77.0.9", 53) == 0);
  CHECK(Send(socket.get(), "10.77.0.8", 53) == EPERM);
}

TEST_CASE_METHOD(Held, "ESP of a held socket leaves, also in UDP") {
  // A socket whose headers are its own stands in for what the kernel makes of a datagram. Its own
  // port is the number of its protocol.
  page->flags = wire::kPageNoRules;
  Use();
  const UniqueFd socket = program.Socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  REQUIRE(socket);
  Hold(socket.get(), {});
  const auto send_packet = [&](uint8_t protocol, uint16_t from) {
    sockaddr_storage name{};
    const socklen_t length = ToSockaddr(At("10.77.0.9", 0), false, 0, &name);
    unsigned char packet[33] = {0x45, 0, 0, sizeof(packet), 0, 0, 0, 0, 64, protocol};
    std::memcpy(packet + 16, At("10.77.0.9", 0).address.octets.data(), 4);
    packet[20] = static_cast<unsigned char>(from >> 8);
    packet[21] = static_cast<unsigned char>(from & 0xff);
    packet[23] = 9;
    packet[25] = 13;
    std::memcpy(packet + 28, "clear", 5);
    const auto* to = reinterpret_cast<const sockaddr*>(&name);
    const int error = sendto(socket.get(), packet, sizeof(packet), 0, to, length) < 0 ? errno : 0;
    CHECK(device.Count("clear") == (error == 0 ? 1 : 0));
    return error;
  };
  CHECK(send_packet(IPPROTO_ESP, IPPROTO_RAW) == 0);
  CHECK(send_packet(IPPROTO_AH, IPPROTO_RAW) == 0);
  CHECK(send_packet(IPPROTO_UDP, 4500) == 0);
  CHECK(send_packet(IPPROTO_UDP, IPPROTO_RAW) == EPERM);
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
