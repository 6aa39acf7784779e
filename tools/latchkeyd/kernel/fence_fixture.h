// What the tests of the fence share.
#ifndef TOOLS_LATCHKEYD_KERNEL_FENCE_FIXTURE_H_
#define TOOLS_LATCHKEYD_KERNEL_FENCE_FIXTURE_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <string>

#include "tools/latchkeyd/kernel/addresses.h"
#include "tools/latchkeyd/kernel/datagram_filter.h"
#include "tools/latchkeyd/kernel/fence.h"
#include "tools/latchkeyd/kernel/fence_test_program.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {

using Kind = FenceDecision::Kind;
using wire::Settle;

inline constexpr uint64_t kFence = 0x1234567890;

inline SocketAddress At(const std::string& address, uint16_t port) {
  return {Address::Parse(address).value(), port};
}

// A fenced process in a network namespace of its own, and the rules it is to have.
struct FenceFixture {
  TestNetns netns;
  DatagramFilter filter{{}};
  Fence fence{"", filter.RegionMaps()};
  FencedProgram program;
  std::unique_ptr<wire::Page> page = std::make_unique<wire::Page>();
  FenceIncoming incoming;

  // The rest is protected, so undecided.
  FenceFixture() {
    page->otherwise = Settle::kProtect;
    REQUIRE(fence.Lacking().empty());
    REQUIRE(fence.Enclose(kFence, program.pid()));
  }
  ~FenceFixture() {
    program.End();
    CHECK(fence.Release(kFence));
  }
  FenceFixture(const FenceFixture&) = delete;
  FenceFixture& operator=(const FenceFixture&) = delete;

  void Rule(const std::string& prefix, Settle settle, uint16_t low = 0, uint16_t high = 65535,
            uint8_t protocol = 0) {
    wire::PageRule& rule = page->rules[page->rule_count++];
    rule = {};
    if (!prefix.empty()) {
      const Prefix remote = Prefix::Parse(prefix).value();
      rule.family = remote.base.family == Family::kV4 ? AF_INET : AF_INET6;
      rule.prefix = remote.length;
      std::copy(remote.base.octets.begin(), remote.base.octets.end(), rule.remote);
    }
    rule.settle = settle;
    rule.port_low = low;
    rule.port_high = high;
    rule.protocol = protocol;
  }
  void Use() { REQUIRE(fence.SetRules(kFence, *page, incoming)); }

  UniqueFd Tcp(int domain = AF_INET) { return Made(domain, SOCK_STREAM); }
  UniqueFd Udp(int domain = AF_INET) { return Made(domain, SOCK_DGRAM); }
  UniqueFd Made(int domain, int type) {
    UniqueFd fd = program.Socket(domain, type);
    REQUIRE(fd);
    return fd;
  }
  // Of all hooks, how much was stopped since the last time.
  uint64_t Stopped(FenceStop::Kind kind) {
    uint64_t count = 0;
    for (const FenceStop& stop : fence.TakeStops()) {
      if (stop.kind == kind) count += stop.count;
    }
    return count;
  }
};

inline int Bind(int fd, const std::string& address, uint16_t port = 0) {
  sockaddr_storage name{};
  const socklen_t length = ToSockaddr(At(address, port), false, 0, &name);
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&name), length) == 0);
  socklen_t size = sizeof(name);
  REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0);
  return FromSockaddr(name, size).port;
}

inline int SendTo(int fd, const std::string& address, uint16_t port, bool v6 = false) {
  sockaddr_storage name{};
  const socklen_t length = ToSockaddr(At(address, port), v6, 0, &name);
  return sendto(fd, "x", 1, 0, reinterpret_cast<sockaddr*>(&name), length) == 1 ? 0 : errno;
}

inline int ConnectTo(int fd, const std::string& address, uint16_t port, bool v6 = false) {
  return broker::ConnectTo(fd, v6 ? AF_INET6 : AF_INET, address, port);
}

inline std::string Take(int fd) {
  char text[64];
  const ssize_t size = recv(fd, text, sizeof(text), MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) return "-";
  return size < 0 ? std::to_string(errno) : std::string(text, static_cast<size_t>(size));
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_FENCE_FIXTURE_H_
