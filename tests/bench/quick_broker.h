// A broker on a kernel and a key manager of plain data, with ten thousand latches with a thousand
// peers: what its own work costs is all that takes time. For the benchmarks of this folder.
#ifndef TESTS_BENCH_QUICK_BROKER_H_
#define TESTS_BENCH_QUICK_BROKER_H_

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {

constexpr int kPeers = 1000;
constexpr int kLatches = 10'000;
constexpr int kOfOne = 1000;  // latches with the first peer

using Clock = std::chrono::steady_clock;

inline double MsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

inline double Quantile(std::vector<double>& values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// A kernel that costs next to nothing, and notes when sockets are blocked.
class QuickKernel : public FakeKernel {
 public:
  QuickKernel() : us_(Address::Parse("10.9.0.1").value()) {}

  Result<void> SetPolicy(int fd, const SocketFacts&, const SocketPolicy& policy) override {
    if (policy.kind == SocketPolicy::Kind::kBlock) {
      last_block = Clock::now();
      if (blocks++ == 0) first_block = last_block;
    }
    sockets.at(fd).policy = policy;
    return {};
  }
  Result<void> AddGuard(const Guard&) override { return {}; }
  Result<void> DeleteGuard(const Guard&) override { return {}; }
  bool IsLocalAddress(const Address& address) override { return address == us_; }
  std::optional<int> Borrow(const SocketHint& hint) override { return hint.fd; }
  void GiveBack(int) override {}

  Clock::time_point first_block, last_block;
  int blocks = 0;

 private:
  Address us_;
};

struct QuickBroker {
  explicit QuickBroker(int listeners, policy::OnBreak on_break = policy::OnBreak::kSuspend) {
    policy::Rule rule = ProtectRule();
    rule.on_break = on_break;
    client.policy = MakePolicy({rule});
    client.requester.uid = 1000;
    engine = std::make_unique<Engine>(kernel, keys, observer, Options{});
    if (!engine->Start({})) std::abort();
    for (int i = 0; i < listeners; ++i) {
      const int fd =
          kernel.AddSocket(At("0.0.0.0", static_cast<uint16_t>(8000 + i)), {}, /*v6=*/false);
      if (engine->Listen(client, fd, fd).verdict != wire::Verdict::kLatched) std::abort();
      kernel.sockets.at(fd).facts.tcp_state = 10;
    }
    std::vector<KernelEvent> events;
    for (int i = 0; i < kPeers; ++i) {
      const auto reqid = static_cast<uint32_t>(1 + i);
      Name(reqid, "peer" + std::to_string(i));
      for (const Sa& sa : kernel.AddPair(reqid, PeerAt(i))) {
        events.push_back({KernelEvent::Kind::kSaAdded, sa});
      }
    }
    engine->OnEvents(events);
    // The first peer has a thousand, the others share the rest.
    for (int i = 0; i < kLatches; ++i) {
      const int fd = Socket();
      const std::string peer = PeerAt(i < kOfOne ? 0 : 1 + i % (kPeers - 1));
      if (Connect(fd, peer).verdict != wire::Verdict::kLatched) std::abort();
    }
  }

  static std::string PeerAt(int i) { return fmt::format("10.1.{}.{}", i / 250, 1 + i % 250); }
  void Name(uint32_t reqid, const std::string& who) {
    keys.by_reqid[reqid] = Identified::Known({Identity{who, "me", "pubkey"}, false, {}});
  }
  int Socket() { return kernel.AddSocket({Address::AnyOf(Family::kV4), 0}, {}); }
  // One that does not wait is connected then.
  Answer Connect(int fd, const std::string& peer) {
    const SocketAddress remote = At(peer, 443);
    const Answer answer = engine->Connect(client, fd, fd, remote);
    if (answer.verdict == wire::Verdict::kLatched) {
      SocketFacts& facts = kernel.sockets.at(fd).facts;
      facts.tcp_state = 1;
      facts.remote = remote;
      facts.local = At("10.9.0.1", static_cast<uint16_t>(1024 + fd));
    }
    return answer;
  }

  QuickKernel kernel;
  FakeKeyManager keys;
  FakeObserver observer;
  Client client;
  std::unique_ptr<Engine> engine;
};

}  // namespace latchkey::broker

#endif  // TESTS_BENCH_QUICK_BROKER_H_
