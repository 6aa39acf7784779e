// What the broker adds to the key exchange when the first connect to a peer has to wait for it, as
// far as its own work goes: until the key manager is asked, and from the new SAs to the answer;
// among ten thousand latches, on a kernel and a key manager of plain data. Beside it a connect to a
// peer that has SAs. Prints a table; `tests/bench/run` runs it.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "tests/bench/quick_broker.h"

namespace latchkey::broker {
namespace {

constexpr int kRounds = 1000;

void Line(const char* what, std::vector<double>& values, const char* aim = "") {
  fmt::print("{:36} p50 {:7.3f} ms   p99 {:7.3f} ms{}\n", what, Quantile(values, 0.5),
             Quantile(values, 0.99), aim);
}

int Main() {
  QuickBroker broker(/*listeners=*/0);
  broker.keys.negotiates = true;
  std::vector<double> keyed, before, after, added;
  for (int i = 0; i < kRounds; ++i) {
    const int there = broker.Socket();
    const Clock::time_point begin = Clock::now();
    if (broker.Connect(there, QuickBroker::PeerAt(i)).verdict != wire::Verdict::kLatched) return 1;
    keyed.push_back(MsBetween(begin, Clock::now()));

    const std::string peer = QuickBroker::PeerAt(kPeers + i);
    const int fd = broker.Socket();
    const Clock::time_point asks = Clock::now();
    const Answer answer = broker.Connect(fd, peer);
    const Clock::time_point asked = Clock::now();
    if (answer.verdict != wire::Verdict::kWait || broker.keys.tickets.size() != 1) return 1;
    const auto reqid = static_cast<uint32_t>(kPeers + 1 + i);
    broker.Name(reqid, "peer" + std::to_string(kPeers + i));
    std::vector<KernelEvent> events;
    for (const Sa& sa : broker.kernel.AddPair(reqid, peer)) {
      events.push_back({KernelEvent::Kind::kSaAdded, sa});
    }
    const Clock::time_point made = Clock::now();
    broker.engine->OnEvents(events);
    broker.keys.Finish(peer);
    broker.engine->OnKeys();
    const Clock::time_point done = Clock::now();
    const auto told = broker.observer.answers.find(answer.ticket);
    if (told == broker.observer.answers.end()) return 1;
    if (told->second.verdict != wire::Verdict::kLatched) return 1;
    before.push_back(MsBetween(asks, asked));
    after.push_back(MsBetween(made, done));
    added.push_back(before.back() + after.back());
  }
  fmt::print("A first connect to a peer: {} latches with {} peers, a kernel that costs nothing\n",
             kLatches, kPeers);
  Line("with SAs", keyed);
  Line("without, until they are asked for", before);
  Line("from them to the answer, all done", after);
  Line("added to the key exchange", added, "   (aim: 5 ms)");
  return 0;
}

}  // namespace
}  // namespace latchkey::broker

int main() { return latchkey::broker::Main(); }
