// What the fence costs: the connect of a UDP socket (which sends nothing), a decision that the
// broker notes on a socket, and a datagram over loopback, sent from inside and received inside,
// beside sockets that no fence is around, by turns.
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

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// How long each of kAtOnce took, in nanoseconds.
double Each(const std::function<void()>& all) {
  const auto begin = Clock::now();
  all();
  const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
  return took.count() / kAtOnce;
}

// The first of them is what the others are beside.
void Measure(std::vector<Line> lines) {
  for (int i = 0; i < kRounds; ++i) {
    for (Line& line : lines) {
      line.nanoseconds.push_back(Each([&line] {
        for (int j = 0; j < kAtOnce; ++j) line.once();
      }));
    }
  }
  double bare = 0;
  for (Line& line : lines) {
    const double median = Median(line.nanoseconds);
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

// What the broker does for each connect: notes a decision on a socket, which goes with it.
void MeasureNotes(Fence& fence) {
  std::vector<UniqueFd> noted(kAtOnce);
  std::vector<UniqueFd> bare(kAtOnce);
  const auto open = [](UniqueFd& fd) { fd.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); };
  const auto note = [&fence](const UniqueFd& fd) {
    Check(fence.Decide(fd.get(), {Kind::kFlow, Loopback(9)}).has_value(), "not noted");
  };
  std::vector<double> first;
  std::vector<double> anew;
  std::vector<double> close;
  for (int i = 0; i < kRounds; ++i) {
    std::ranges::for_each(noted, open);
    std::ranges::for_each(bare, open);
    first.push_back(Each([&] { std::ranges::for_each(noted, note); }));
    anew.push_back(Each([&] { std::ranges::for_each(noted, note); }));
    const double with = Each([&] {
      for (UniqueFd& fd : noted) fd.Reset();
    });
    close.push_back(with - Each([&] {
                      for (UniqueFd& fd : bare) fd.Reset();
                    }));
  }
  std::printf("%-34s %20.0f ns\n%-34s %20.0f ns\n%-34s %+20.0f ns\n",
              "a decision, noted by the broker", Median(first), "the same, noted anew",
              Median(anew), "close of a noted socket", Median(close));
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

  MeasureNotes(fence);

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
