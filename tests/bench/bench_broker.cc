// bench_broker DIR LOCAL REMOTE: the real server and engine over BenchKernel, for tests/bench/run.
//
// Socket, journal and pages are in DIR; it prints "ready" and serves until SIGTERM. Everybody is
// bob, and comes to have SAs 20 ms after a negotiation with him began; at 10.9.2.0/24, 300 ms.
// What it decides about connects to 10.9.0.3 no fence hears of.
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/bench_kernel.h"
#include "tools/latchkeyd/kernel/fence.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/key_manager.h"
#include "tools/latchkeyd/server/listener.h"
#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {
namespace {

class Bob : public KeyManager {
 public:
  Identified Identify(const Sa&, bool) override {
    return Identified::Known({{"bob", "alice", "manual"}, true, {}});
  }
  // One at a time: who measures asks for one after the other.
  Result<uint64_t> Acquire(const AcquireRequest& request) override {
    remote_ = request.flow.remote.address;
    const bool slow = Prefix::Parse("10.9.2.0/24")->Contains(remote_);
    itimerspec after{};
    after.it_value.tv_nsec = (slow ? 300 : 20) * 1'000'000;
    timerfd_settime(timer_.get(), 0, &after, nullptr);
    return ++ticket_;
  }
  void Abandon(uint64_t) override {}
  void Release(const Flow&) override {}
  std::vector<KeyEvent> TakeEvents() override { return std::exchange(events_, {}); }

  int TimerFd() const { return timer_.get(); }
  // The negotiation is over: returns with whom.
  Address Finish() {
    uint64_t count = 0;
    if (read(timer_.get(), &count, sizeof(count)) != sizeof(count)) return {};
    KeyEvent event;
    event.kind = KeyEvent::Kind::kAcquired;
    event.ticket = ticket_;
    events_.push_back(event);
    return remote_;
  }

 private:
  UniqueFd timer_{timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
  uint64_t ticket_ = 0;
  Address remote_;
  std::vector<KeyEvent> events_;
};

// The broker notes its decisions on all sockets, whether a fence is around them or not. Not so for
// those of which it is asked what a connect costs without a fence.
class BenchFence : public Fence {
 public:
  using Fence::Fence;
  Result<void> Decide(int fd, const FenceDecision& decision) override {
    static const std::optional<Address> kUnnoted = Address::Parse("10.9.0.3");
    if (decision.remote.address == kUnnoted) return {};
    return Fence::Decide(fd, decision);
  }
};

int Fatal(const std::string& text) {
  std::fprintf(stderr, "bench_broker: %s\n", text.c_str());
  return 1;
}

int Main(const std::string& directory, const Address& local, const Address& remote) {
  Result<std::unique_ptr<RealKernel>> real = RealKernel::Open();
  if (!real) return Fatal(real.error().ToString());
  BenchKernel kernel(std::move(*real), local, remote);
  mkdir((directory + "/pages").c_str(), 0700);
  JournalState old;
  Result<Journal> journal = Journal::Open(directory + "/journal", old);
  if (!journal) return Fatal(journal.error().ToString());
  SessionTable sessions(directory + "/pages", Options{}.guard_mark);
  // What a latch costs is measured as it is in use: it is described for the log, which nobody
  // reads.
  Server server(kernel, sessions, *journal, {}, [](const std::string&) {});
  Bob keys;
  Engine engine(kernel, keys, server, {});
  server.Use(engine);
  BenchFence fence("");
  if (const std::string lacking = fence.Lacking(); !lacking.empty()) {
    std::fprintf(stderr, "bench_broker: without a fence: %s\n", lacking.c_str());
  }
  server.Use(fence);
  if (Result<void> started = engine.Start({}); !started) {
    return Fatal(started.error().ToString());
  }
  bool handed_over = false;
  Result<UniqueFd> listener = OpenListener(directory + "/broker.sock", &handed_over);
  if (!listener) return Fatal(listener.error().ToString());
  const UniqueFd poll(epoll_create1(EPOLL_CLOEXEC));
  const auto watch = [&poll](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(poll.get(), EPOLL_CTL_ADD, fd, &event);
  };
  watch(listener->get());
  watch(kernel.real().EventFd());
  watch(server.TextsFd());
  watch(keys.TimerFd());
  std::puts("ready");
  std::fflush(stdout);
  int64_t next_tick = 0;
  for (;;) {
    epoll_event events[64];
    int64_t timeout = 500;
    if (const auto due = engine.NextDue()) {
      timeout = std::clamp<int64_t>(*due - kernel.NowMs(), 0, timeout);
    }
    const int count = epoll_wait(poll.get(), events, 64, static_cast<int>(timeout));
    // Guards come and go; SAs do not.
    if (!kernel.real().ReadEvents()) return Fatal("no more kernel events");
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener->get()) {
        if (UniqueFd fresh = AcceptConnection(fd)) {
          const int number = fresh.get();
          if (server.AddConnection(std::move(fresh))) watch(number);
        }
      } else if (fd == server.TextsFd()) {
        server.OnTexts();
      } else if (fd == keys.TimerFd()) {
        engine.OnEvents(kernel.AddPair(local, keys.Finish()));
      } else if (server.HasConnection(fd)) {
        server.OnReadable(fd);
      } else if (fd != kernel.real().EventFd()) {
        epoll_ctl(poll.get(), EPOLL_CTL_DEL, fd, nullptr);
      }
    }
    engine.OnKeys();
    engine.OnTime();
    if (kernel.NowMs() >= next_tick) {
      next_tick = kernel.NowMs() + 500;
      server.Tick();
    }
  }
}

}  // namespace
}  // namespace latchkey::broker

int main(int argc, char** argv) {
  const auto address = [&](int i) {
    return argc == 4 ? latchkey::Address::Parse(argv[i]) : std::nullopt;
  };
  const auto local = address(2);
  const auto remote = address(3);
  if (!local || !remote) {
    std::fprintf(stderr, "usage: bench_broker DIR LOCAL REMOTE\n");
    return 2;
  }
  return latchkey::broker::Main(argv[1], *local, *remote);
}
