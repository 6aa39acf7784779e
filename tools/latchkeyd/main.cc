// latchkeyd, the broker: wires kernel, key manager, engine and server together and runs their loop.

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/kernel/fence.h"
#include "tools/latchkeyd/kernel/real_kernel.h"
#include "tools/latchkeyd/keymgr/keyring.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/server/listener.h"
#include "tools/latchkeyd/server/neighbours.h"
#include "tools/latchkeyd/server/privileges.h"
#include "tools/latchkeyd/server/server.h"
#include "tools/latchkeyd/server/system_file.h"
#include "tools/latchkeyd/server/takeover.h"
#include "tools/version.h"

namespace latchkey::broker {
namespace {

constexpr int kTickMs = 500;
constexpr const char* kFilterPins = "/sys/fs/bpf/latchkey";
constexpr int64_t kPrivateIdleMs = 3'000;
constexpr int64_t kPrivatePatienceMs = 30'000;
constexpr rlim_t kMostDescriptors = 65'536;
constexpr rlim_t kOtherDescriptors = 256;  // those that are no connections, and some to spare
constexpr size_t kFewestConnections = 64;

struct Arguments {
  std::string socket = "/run/latchkey/broker.sock";
  std::string system = "/etc/latchkey/system.toml";
  std::string pad = "/etc/latchkey/pad.toml";
  std::string vici = "/var/run/charon.vici";
  std::string run_dir = "/run/latchkey";
  std::string state_dir = "/var/lib/latchkey";
  bool is_private = false;
};

// Lines of the log that are not written yet: programs get their answers first.
std::string unwritten;

void WriteLog() {
  if (unwritten.empty()) return;
  // Nobody can be told that the log cannot be written.
  const ssize_t written = write(STDERR_FILENO, unwritten.data(), unwritten.size());
  static_cast<void>(written);
  unwritten.clear();
}

// One line; what a client made us say cannot make it two.
void Log(const std::string& text) {
  constexpr size_t kMost = 65'536;  // octets
  static const bool journal = getenv("JOURNAL_STREAM") != nullptr;
  unwritten += journal ? "<6>latchkeyd: " : "latchkeyd: ";
  for (const char c : text) {
    unwritten += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  unwritten += '\n';
  if (unwritten.size() > kMost) WriteLog();
}

// A value of many lines, the errors of a file, is many lines of the log.
int Fatal(const Error& error) {
  const std::string text = error.ToString();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    Log(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return 1;
}

bool MakeDirectories(const std::string& path, mode_t mode) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    mkdir(path.substr(0, slash).c_str(), 0755);
  }
  struct stat status {};
  return (mkdir(path.c_str(), mode) == 0 || errno == EEXIST) && stat(path.c_str(), &status) == 0 &&
         S_ISDIR(status.st_mode);
}

Result<UniqueFd> Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return Fail(Reason::kKernelRefused, "signalfd", strerror(errno));
  return fd;
}

// Raises the limit of open descriptors as far as it goes, and returns how many connections that is
// good for.
size_t RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kFewestConnections;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, kMostDescriptors);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur <= 2 * kOtherDescriptors) return kFewestConnections;
  return limit.rlim_cur - kOtherDescriptors;
}

void TakeTurn(Turn& turn) {
  if (!turn.Take()) Log("warning: another broker has been starting or stopping for long");
}

class Broker {
 public:
  explicit Broker(Arguments arguments) : arguments_(std::move(arguments)) {}

  int Run() {
    if (!HasNetAdmin()) {
      Log("needs CAP_NET_ADMIN: run it as root");
      return 1;
    }
    Result<policy::SystemPolicy> read = ReadSystemFile(arguments_.system);
    if (!read) return Fatal(read.error());
    const auto system = std::make_shared<const policy::SystemPolicy>(std::move(*read));
    if (!MakeDirectories(arguments_.run_dir, 0755) ||
        !MakeDirectories(arguments_.run_dir + "/pages", 0700)) {
      Log(arguments_.run_dir + ": cannot be made: " + strerror(errno));
      return 1;
    }
    // Closed after the lock, so that the next to have its turn does not see us any more.
    Turn turn;
    TakeTurn(turn);
    Result<UniqueFd> lock = LockDirectory(arguments_.run_dir);
    if (!lock) return Fatal(lock.error());
    Result<UniqueFd> signals = Signals();
    if (!signals) return Fatal(signals.error());
    FragmentOptions fragments;
    fragments.dropped = system->fragments_dropped;
    if (arguments_.is_private) {  // it shares the namespace with others, and leaves nothing behind
      fragments.table += "-" + std::to_string(getpid());
      fragments.owned = true;
    }
    DatagramOptions datagrams;
    datagrams.tag_mask = TagMask(system->mark_mask);
    // What a private broker filters goes with its program.
    if (!arguments_.is_private) datagrams.pins = kFilterPins;
    Result<std::unique_ptr<RealKernel>> kernel =
        RealKernel::Open(std::move(fragments), datagrams, arguments_.run_dir + "/packets-held");
    if (!kernel) return Fatal(kernel.error());
    const std::string complaint = (*kernel)->DatagramComplaint();
    if (!complaint.empty() && !arguments_.is_private) Log("error: " + complaint);
    if (const std::string& why = (*kernel)->HoldComplaint(); !why.empty()) Log("warning: " + why);
    // Of a private broker, it stands for its program's life.
    Fence fence(arguments_.is_private ? "" : kFilterPins, (*kernel)->RegionMaps());
    if (const std::string lacking = fence.Lacking(); !lacking.empty()) {
      Log("warning: no fences: " + lacking);
    } else if (const std::string unfound = fence.Complaint(); !unfound.empty()) {
      Log("error: " + unfound);
    }
    // The policy that was decided is in force by then.
    (*kernel)->BeforeConnect([&fence](int fd, const SocketAddress& remote) {
      // What cannot be noted is stopped.
      static_cast<void>(fence.Decide(fd, {FenceDecision::Kind::kFlow, remote}));
    });
    JournalState old;
    Result<Journal> journal = Journal::Open(arguments_.run_dir + "/journal", old);
    if (!journal) return Fatal(journal.error());

    const uint32_t guard_mark = GuardBit(system->mark_mask);
    SessionTable sessions(arguments_.run_dir + "/pages", guard_mark,
                          Admission(system, arguments_.state_dir));
    ServerOptions options;
    options.system_file = arguments_.system;
    options.connections = RaiseDescriptorLimit();
    // Half of them stay for others, whatever one user does.
    options.connections_per_user = std::min(options.connections_per_user, options.connections / 2);
    if (arguments_.is_private) options.session_idle_ms = kPrivateIdleMs;
    Server server(**kernel, sessions, *journal, options, Log);
    ManualKeyManager pad(arguments_.pad, Log);
    ViciKeyManager charon({.path = arguments_.vici, .now_ms = {}, .log = Log});
    Keyring keys(pad, &charon);
    Options engine_options;
    // Several brokers of one namespace (private ones) share the standing guards.
    engine_options.shared_guards = true;
    engine_options.guard_mark = guard_mark;
    engine_options.tag_mask = TagMask(system->mark_mask);
    engine_options.system = system;
    Engine engine(**kernel, keys, server, engine_options);
    server.Use(engine);
    Legacy legacy = TakeOver(old, sessions, (*kernel)->NowMs(), Log);
    server.RestoreWishes(old);
    server.RestoreTold();
    server.Use(fence);
    if (legacy.incomplete && OtherBrokers(arguments_.run_dir)) {
      Log("error: what the journal lacks may be another broker's, and is left alone");
      legacy.incomplete = false;
    }
    if (Result<void> started = engine.Start(std::move(legacy)); !started) {
      return Fatal(started.error());
    }
    if (!journal->Compact(server.Snapshot())) {
      Log("error: the journal cannot be written anew: it goes on growing");
    }

    bool handed_over = false;
    Result<UniqueFd> listener = OpenListener(arguments_.socket, &handed_over);
    Result<void> ready = {};
    if (!listener) ready = std::unexpected(listener.error());
    if (ready) ready = DropPrivileges();
    if (!ready) {
      engine.Stop(OtherBrokers(arguments_.run_dir));
      return Fatal(ready.error());
    }
    turn.Pass();
    WriteLog();
    std::printf("latchkeyd: ready\n");
    std::fflush(stdout);
    Notify("READY=1");
    Loop(**kernel, engine, server, keys, listener->get(), signals->get());
    Notify("STOPPING=1");
    TakeTurn(turn);
    engine.Stop(OtherBrokers(arguments_.run_dir));
    if (!fence.Fences().empty()) (*kernel)->KeepDatagramPins();
    if (!handed_over) unlink(arguments_.socket.c_str());
    // What still lives is written down for the next broker: programs keep their tokens.
    server.EndIdleSessions();
    // Of a private broker nothing stays; of another the ids that it gave.
    if (arguments_.is_private && sessions.all().empty() && engine.database().entries().empty()) {
      unlink((arguments_.run_dir + "/journal").c_str());
    } else if (!journal->Compact(server.Snapshot())) {
      Log("error: the journal cannot be written anew");
    }
    return 0;
  }

 private:
  void Loop(RealKernel& kernel, Engine& engine, Server& server, Keyring& keys, int listener,
            int signals) const {
    const UniqueFd poll(epoll_create1(EPOLL_CLOEXEC));
    const auto watch = [&poll](int fd) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = fd;
      epoll_ctl(poll.get(), EPOLL_CTL_ADD, fd, &event);
    };
    const auto listen_to = [&poll, listener](uint32_t what) {
      epoll_event event{};
      event.events = what;
      event.data.fd = listener;
      epoll_ctl(poll.get(), EPOLL_CTL_MOD, listener, &event);
    };
    bool paused = false;
    watch(listener);
    watch(signals);
    watch(kernel.EventFd());
    watch(server.TextsFd());
    watch(keys.Fd());
    const auto drain = [&] {
      for (;;) {
        Result<std::vector<KernelEvent>> events = kernel.ReadEvents();
        if (!events) {
          Log("no more kernel events: " + events.error().ToString());
          epoll_ctl(poll.get(), EPOLL_CTL_DEL, kernel.EventFd(), nullptr);
          engine.OnEvents({KernelEvent{KernelEvent::Kind::kOverrun, {}}});
          return;
        }
        if (events->empty()) return;
        engine.OnEvents(*events);
      }
    };
    int64_t next_tick = 0;
    int64_t lonely_since = kernel.NowMs();
    bool ever_served = false;
    for (;;) {
      epoll_event events[64];
      WriteLog();
      int timeout = kTickMs;
      if (const std::optional<int64_t> due = engine.NextDue()) {
        timeout = static_cast<int>(std::clamp<int64_t>(*due - kernel.NowMs(), 0, kTickMs));
      }
      const int count = epoll_wait(poll.get(), events, 64, timeout);
      // What the kernel has to say comes before any request: a decision must not be older than it.
      drain();
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == signals) return;
        if (fd == kernel.EventFd()) continue;  // drained already
        if (fd == listener) {
          UniqueFd fresh = AcceptConnection(listener);
          const int error = errno;
          if (fresh) {
            const int number = fresh.get();
            if (server.AddConnection(std::move(fresh))) watch(number);
          } else if (error != EAGAIN && error != ECONNABORTED && error != EINTR) {
            // No descriptor left: asking again at once would be all that we do.
            Log(std::string("error: no connection can be taken for a while: ") + strerror(error));
            listen_to(0);
            paused = true;
          }
        } else if (fd == keys.Fd()) {
          keys.OnReadable();
        } else if (fd == server.TextsFd()) {
          server.OnTexts();
        } else if (server.HasConnection(fd)) {
          server.OnReadable(fd);
        } else {
          // Ended, and not closed yet: it would go on being reported.
          epoll_ctl(poll.get(), EPOLL_CTL_DEL, fd, nullptr);
        }
      }
      // Names come after what they name: an SA is in the kernel before its key manager tells of it.
      drain();
      engine.OnKeys();
      engine.OnTime();
      const int64_t now = kernel.NowMs();
      if (now >= next_tick) {
        next_tick = now + kTickMs;
        if (std::exchange(paused, false)) listen_to(EPOLLIN);
        // Another answer to "who is it" counts like another SA: everything is looked at again.
        if (keys.Refresh()) engine.OnEvents({KernelEvent{KernelEvent::Kind::kOverrun, {}}});
        server.Tick();
        if (server.session_count() > 0 || !engine.database().entries().empty()) {
          ever_served = true;
          lonely_since = now;
        }
        const int64_t patience = ever_served ? kPrivateIdleMs : kPrivatePatienceMs;
        if (arguments_.is_private && now - lonely_since >= patience) return;
      }
    }
  }

  const Arguments arguments_;
};

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("latchkeyd: binds programs' connections to authenticated peers (RFC 5660)");
  app.add_option("--socket", arguments.socket, "where programs reach it");
  app.add_option("--system", arguments.system, "the system policy");
  app.add_option("--pad", arguments.pad, "who is behind manually keyed SAs");
  app.add_option("--vici", arguments.vici, "strongSwan's control socket");
  app.add_option("--run-dir", arguments.run_dir, "journal and shared pages");
  app.add_option("--state-dir", arguments.state_dir, "what outlives a reboot");
  app.add_flag("--private", arguments.is_private, "end with the last session and latch");
  app.set_version_flag("--version", std::string("latchkeyd ") + kVersionText);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const int status = Broker(std::move(arguments)).Run();
  WriteLog();
  return status;
}

}  // namespace
}  // namespace latchkey::broker

int main(int argc, char** argv) {
  try {
    return latchkey::broker::Main(argc, argv);
  } catch (const std::exception& error) {  // no memory: what is latched stays so, by the kernel
    std::fprintf(stderr, "latchkeyd: %s\n", error.what());
    return 1;
  }
}
