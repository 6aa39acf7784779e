// How long a conflicting SA is in force for latched sockets before they are blocked, as far as the
// broker's own work goes: ten thousand latches with a thousand peers, on a kernel of plain data.
// Prints a table; `tests/bench/run` runs it.
#include <fmt/format.h>

#include <cstdlib>
#include <random>
#include <vector>

#include "tests/bench/quick_broker.h"

namespace latchkey::broker {
namespace {

struct Bench : QuickBroker {
  using QuickBroker::QuickBroker;

  // Lets an SA of somebody else's with that peer's address come, and go again.
  void Intrude(int peer) {
    Name(kPeers + 1, "mallory");
    const Sa sa = kernel.AddPair(kPeers + 1, PeerAt(peer))[1];
    kernel.blocks = 0;
    const Clock::time_point begin = Clock::now();
    engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
    const Clock::time_point end = Clock::now();
    if (kernel.blocks == 0) std::abort();
    first = MsBetween(begin, kernel.first_block);
    last = MsBetween(begin, kernel.last_block);
    whole = MsBetween(begin, end);
    blocked = kernel.blocks;
    kernel.sad.resize(kernel.sad.size() - 2);
    engine->OnEvents({{KernelEvent::Kind::kSaDeleted, sa}});
    observer.log.clear();
  }

  double first = 0, last = 0, whole = 0;  // ms after the event
  int blocked = 0;
};

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
