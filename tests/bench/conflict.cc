// How long a conflicting SA is in force for latched sockets before they are blocked, as far as the
// broker's own work goes: ten thousand latches with a thousand peers, on a kernel of plain data.
// Prints a table; `tests/bench/run` runs it.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPeers = 1000;
constexpr int kLatches = 10'000;
constexpr int kOfOne = 1000;  // latches with one peer

double MsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
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

class Bench {
 public:
  explicit Bench(int listeners, policy::OnBreak on_break = policy::OnBreak::kSuspend) {
    policy::Rule rule = ProtectRule();
    rule.on_break = on_break;
    client_.policy = MakePolicy({rule});
    client_.requester.uid = 1000;
    engine_ = std::make_unique<Engine>(kernel_, keys_, observer_, Options{});
    if (!engine_->Start({})) std::abort();
    for (int i = 0; i < listeners; ++i) {
      const int fd =
          kernel_.AddSocket(At("0.0.0.0", static_cast<uint16_t>(8000 + i)), {}, /*v6=*/false);
      if (engine_->Listen(client_, fd, fd).verdict != wire::Verdict::kLatched) std::abort();
      kernel_.sockets.at(fd).facts.tcp_state = 10;
    }
    std::vector<KernelEvent> events;
    for (int i = 0; i < kPeers; ++i) {
      const auto reqid = static_cast<uint32_t>(1 + i);
      Name(reqid, "peer" + std::to_string(i));
      for (const Sa& sa : kernel_.AddPair(reqid, PeerAt(i))) {
        events.push_back({KernelEvent::Kind::kSaAdded, sa});
      }
    }
    engine_->OnEvents(events);
    // The first peer has a thousand, the others share the rest.
    for (int i = 0; i < kLatches; ++i) Connect(i < kOfOne ? 0 : 1 + i % (kPeers - 1));
  }

  // Lets an SA of somebody else's with that peer's address come, and go again.
  void Intrude(int peer) {
    Name(kPeers + 1, "mallory");
    const Sa sa = kernel_.AddPair(kPeers + 1, PeerAt(peer))[1];
    kernel_.blocks = 0;
    const Clock::time_point begin = Clock::now();
    engine_->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
    const Clock::time_point end = Clock::now();
    if (kernel_.blocks == 0) std::abort();
    first = MsBetween(begin, kernel_.first_block);
    last = MsBetween(begin, kernel_.last_block);
    whole = MsBetween(begin, end);
    blocked = kernel_.blocks;
    kernel_.sad.resize(kernel_.sad.size() - 2);
    engine_->OnEvents({{KernelEvent::Kind::kSaDeleted, sa}});
    observer_.log.clear();
  }

  double first = 0, last = 0, whole = 0;  // ms after the event
  int blocked = 0;

 private:
  static std::string PeerAt(int i) { return fmt::format("10.1.{}.{}", i / 250, 1 + i % 250); }
  void Name(uint32_t reqid, const std::string& who) {
    keys_.by_reqid[reqid] = Identified::Known({Identity{who, "me", "pubkey"}, false, {}});
  }
  void Connect(int peer) {
    const SocketAddress remote = At(PeerAt(peer), 443);
    const int fd = kernel_.AddSocket({Address::AnyOf(Family::kV4), 0}, {});
    if (engine_->Connect(client_, fd, fd, remote).verdict != wire::Verdict::kLatched) std::abort();
    SocketFacts& facts = kernel_.sockets.at(fd).facts;
    facts.tcp_state = 1;
    facts.remote = remote;
    facts.local = At("10.9.0.1", static_cast<uint16_t>(1024 + fd));
  }

  QuickKernel kernel_;
  FakeKeyManager keys_;
  FakeObserver observer_;
  Client client_;
  std::unique_ptr<Engine> engine_;
};

double Quantile(std::vector<double>& values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

int Main() {
  fmt::print("A conflicting SA: {} latches with {} peers, a kernel that costs nothing\n", kLatches,
             kPeers);
  std::mt19937 random(1);
  for (const int listeners : {0, 10}) {
    Bench bench(listeners);
    std::vector<double> first, whole;
    for (int i = 0; i < 1000; ++i) {
      bench.Intrude(1 + static_cast<int>(random() % (kPeers - 1)));
      first.push_back(bench.first);
      whole.push_back(bench.whole);
    }
    fmt::print("{:2} listeners, to the first block   p50 {:7.3f} ms   p99 {:7.3f} ms{}\n",
               listeners, Quantile(first, 0.5), Quantile(first, 0.99),
               listeners == 0 ? "   (aim: 2 and 10 ms)" : "");
    fmt::print("{:2} listeners, until all is done    p50 {:7.3f} ms   p99 {:7.3f} ms\n", listeners,
               Quantile(whole, 0.5), Quantile(whole, 0.99));
  }
  Bench bench(/*listeners=*/0);
  std::vector<double> last;
  for (int i = 0; i < 50; ++i) {
    bench.Intrude(0);
    if (bench.blocked != kOfOne) return 1;
    last.push_back(bench.last);
  }
  fmt::print("{} latches of one reqid blocked  p50 {:7.3f} ms   p99 {:7.3f} ms   (aim: 250 ms)\n",
             kOfOne, Quantile(last, 0.5), Quantile(last, 0.99));
  return 0;
}

}  // namespace
}  // namespace latchkey::broker

int main() { return latchkey::broker::Main(); }
