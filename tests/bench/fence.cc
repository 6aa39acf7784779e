// What the fence costs: the connect of a UDP socket (which sends nothing), and a datagram over
// loopback, sent from inside and received inside, beside sockets that no fence is around, by turns.
#include "tools/latchkeyd/kernel/fence.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/fence_test_program.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = FenceDecision::Kind;

constexpr uint64_t kFence = 1;
constexpr int kAtOnce = 64;  // fit into a receive buffer
constexpr int kRounds = 400;
constexpr uint32_t kRules = 256;

void Check(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "bench: %s\n", what);
  std::exit(1);
}

SocketAddress Loopback(uint16_t port, const char* address = "127.0.0.1") {
  return {Address::Parse(address).value(), port};
}

struct Line {
  const char* name;
  std::function<void()> once;
  std::vector<double> nanoseconds{};
};

// The first of them is what the others are beside.
void Measure(std::vector<Line> lines) {
  for (int i = 0; i < kRounds; ++i) {
    for (Line& line : lines) {
      const auto begin = Clock::now();
      for (int j = 0; j < kAtOnce; ++j) line.once();
      const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
      line.nanoseconds.push_back(took.count() / kAtOnce);
    }
  }
  double bare = 0;
  for (Line& line : lines) {
    std::ranges::sort(line.nanoseconds);
    const double median = line.nanoseconds[line.nanoseconds.size() / 2];
    if (bare == 0) bare = median;
    std::printf("%-34s %8.0f ns %+8.0f ns\n", line.name, median, median - bare);
  }
}

void Connect(int fd, const SocketAddress& to) {
  sockaddr_storage name{};
  const socklen_t length = ToSockaddr(to, false, 0, &name);
  Check(connect(fd, reinterpret_cast<sockaddr*>(&name), length) == 0, "not connected");
}

// As many rules as there can be: the first lets 127.1/16 pass, the last the rest of loopback.
void UseRules(Fence& fence) {
  const auto page = std::make_unique<wire::Page>();
  page->otherwise = wire::Settle::kProtect;
  page->rule_count = kRules;
  for (wire::PageRule& rule : page->rules) {
    rule.settle = wire::Settle::kProtect;
    rule.family = AF_INET;
    rule.prefix = 8;
    rule.port_high = 65535;
    rule.remote[0] = 10;
  }
  wire::PageRule& first = page->rules[0];
  first.settle = wire::Settle::kBypass;
  first.prefix = 16;
  first.remote[0] = 127;
  first.remote[1] = 1;
  wire::PageRule& last = page->rules[kRules - 1];
  last.settle = wire::Settle::kBypass;
  last.remote[0] = 127;
  Check(fence.SetRules(kFence, *page, {}).has_value(), "no rules");
}

int Main() {
  const TestNetns netns;
  Fence fence("");
  Check(fence.Lacking().empty(), fence.Lacking().c_str());
  FencedProgram program;
  Check(fence.Enclose(kFence, program.pid()).has_value(), "no fence");
  UseRules(fence);
  const auto inside = [&program] {
    UniqueFd fd = program.Socket(AF_INET, SOCK_DGRAM);
    Check(static_cast<bool>(fd), "no socket");
    return fd;
  };
  const auto decide = [&fence](int fd, Kind kind, uint16_t port) {
    Check(fence.Decide(fd, {kind, Loopback(port)}).has_value(), "not decided");
  };

  const TestUdp sink("127.0.0.1");
  const TestUdp outside("127.0.0.1");
  const UniqueFd decided = inside();
  decide(decided.get(), Kind::kFlow, sink.port());
  const UniqueFd by_rule = inside();
  // Each time to another port: what is noted is of no use then.
  uint16_t port = 1;
  const auto anew = [&](const char* address) {
    port ^= 2;
    Connect(by_rule.get(), Loopback(port, address));
  };
  const SocketAddress there = Loopback(sink.port());
  Measure({{"connect, no fence", [&] { Connect(outside.fd(), there); }},
           {"connect, decided", [&] { Connect(decided.get(), there); }},
           {"connect, by the 1st rule", [&] { anew("127.1.0.1"); }},
           {"connect, by the 256th rule", [&] { anew("127.0.0.1"); }}});

  char text[64] = {};
  const auto pass = [&text](int from, int to) {
    Check(send(from, text, sizeof(text), 0) > 0, "not sent");
    Check(recv(to, text, sizeof(text), MSG_DONTWAIT) > 0, "not received");
  };
  const UniqueFd held = inside();
  sockaddr_storage name{};
  const socklen_t length = ToSockaddr(Loopback(0), false, 0, &name);
  Check(bind(held.get(), reinterpret_cast<sockaddr*>(&name), length) == 0, "not bound");
  socklen_t size = sizeof(name);
  Check(getsockname(held.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0, "no name");
  decide(held.get(), Kind::kHeld, 0);
  const TestUdp to_held("127.0.0.1");
  Connect(to_held.fd(), Loopback(FromSockaddr(name, size).port));
  Measure({{"datagram, no fence", [&] { pass(outside.fd(), sink.fd()); }},
           {"datagram, sent from inside", [&] { pass(decided.get(), sink.fd()); }},
           {"datagram, received inside", [&] { pass(to_held.fd(), held.get()); }}});
  program.End();
  Check(fence.Release(kFence), "the fence stays");
  return 0;
}

}  // namespace
}  // namespace latchkey::broker

int main() { return latchkey::broker::Main(); }
