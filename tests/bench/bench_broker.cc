// bench_broker DIR LOCAL REMOTE: the real server and engine over BenchKernel, for tests/bench/run.
//
// Socket, journal and pages are in DIR; it prints "ready" and serves until SIGTERM. Everybody is
// bob.
#include <sys/epoll.h>
#include <sys/stat.h>

#include <cstdio>
#include <string>
#include <utility>

#include "tests/bench/bench_kernel.h"
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
  Result<uint64_t> Acquire(const AcquireRequest&) override {
    return Fail(Reason::kNoSa, "acquire SA", "not here");
  }
  void Abandon(uint64_t) override {}
  void Release(const Flow&) override {}
  std::vector<KeyEvent> TakeEvents() override { return {}; }
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
  std::puts("ready");
  std::fflush(stdout);
  int64_t next_tick = 0;
  for (;;) {
    epoll_event events[64];
    const int count = epoll_wait(poll.get(), events, 64, 500);
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
      } else if (server.HasConnection(fd)) {
        server.OnReadable(fd);
      } else if (fd != kernel.real().EventFd()) {
        epoll_ctl(poll.get(), EPOLL_CTL_DEL, fd, nullptr);
      }
    }
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
