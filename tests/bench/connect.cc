// connect: what Latchkey adds to system calls. Run under `latchkey run`, it makes each call twice,
// by turns: as any program does, and by the address of libc's own function, past the shim.
//
// (Past libc too would not do: its wrappers have a cost of their own, 50 to 200 ns on some
// machines.)
//
//   connect serve ADDRESS PORT             accepts, sends one octet, closes when the client does
//   connect measure ADDRESS PORT N         connects N times each way (bare: to PORT + 1); then the
//                                          other calls
//   connect keyless ADDRESS PORT           connects to peers that have no SA yet, at 10.9.1.0/24
//                                          and, where that takes longer, 10.9.2.0/24
//   connect turns ADDRESS PORT N MINE NEXT connects likewise, N blocks of 50, by turns with others:
//                                          a block begins with an octet from the FIFO MINE and
//                                          ends with one into NEXT; prints the block's medians,
//                                          bare and by name, in nanoseconds
//   connect rare ADDRESS PORT              calls of which the shim must look at what they are about
//   connect trace ADDRESS PORT             500 rounds of data calls between two getppid() calls
//
// Times are CLOCK_MONOTONIC, in nanoseconds; the table goes to standard output.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/calls.h"

namespace {

using namespace latchkey::bench;  // NOLINT(google-build-using-namespace)

int64_t Now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

sockaddr_in Endpoint(const char* address, const char* port) {
  sockaddr_in endpoint{};
  endpoint.sin_family = AF_INET;
  endpoint.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
  if (inet_pton(AF_INET, address, &endpoint.sin_addr) != 1) Die(address);
  return endpoint;
}

int Serve(const sockaddr_in& endpoint) {
  signal(SIGCHLD, SIG_IGN);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (bind(listener, reinterpret_cast<const sockaddr*>(&endpoint), sizeof(endpoint)) != 0 ||
      listen(listener, 1000) != 0) {
    Die("listen");
  }
  // A connection is looked after until the next one comes: its client has closed it by then, or is
  // one of the last, which want the octet and nothing more.
  int last[16];
  std::fill(std::begin(last), std::end(last), -1);
  for (size_t i = 0;; i = (i + 1) % std::size(last)) {
    const int client = accept(listener, nullptr, nullptr);
    if (client < 0) continue;
    send(client, "x", 1, MSG_NOSIGNAL);
    if (last[i] >= 0) close(last[i]);
    last[i] = client;
  }
}

int NewSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("socket");
  const linger hard{1, 0};  // no TIME_WAIT: ports do not run out
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  return fd;
}

int64_t TimedConnect(const sockaddr_in& to, const Libc& libc) {
  const int fd = NewSocket();
  const auto* address = reinterpret_cast<const sockaddr*>(&to);
  const int64_t start = Now();
  const int result = libc.connect(fd, address, sizeof(to));
  const int64_t taken = Now() - start;
  if (result != 0) {
    std::fprintf(stderr, "connect (%s): %s\n", &libc == &kBare ? "bare" : "by name",
                 std::strerror(errno));
    std::exit(1);
  }
  libc.close(fd);
  return taken;
}

int64_t Percentile(std::vector<int64_t>& values, int percent) {
  const size_t at = std::min(values.size() - 1, values.size() * static_cast<size_t>(percent) / 100);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

double Micro(int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1000; }

// A process that answers each message at once: what asking any other process costs.
class Echo {
 public:
  Echo() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) Die("socketpair");
    const pid_t child = fork();
    if (child < 0) Die("fork");
    if (child == 0) {
      kBare.close(ends[0]);
      char message[64];
      for (ssize_t size; (size = kBare.recv(ends[1], message, sizeof(message), 0)) > 0;) {
        kBare.send(ends[1], message, static_cast<size_t>(size), MSG_NOSIGNAL);
      }
      _exit(0);
    }
    kBare.close(ends[1]);
    fd_ = ends[0];
  }
  ~Echo() { kBare.close(fd_); }
  Echo(const Echo&) = delete;
  Echo& operator=(const Echo&) = delete;

  int64_t TimedExchange() const {
    char message[48] = {};
    const int64_t start = Now();
    kBare.send(fd_, message, sizeof(message), MSG_NOSIGNAL);
    if (kBare.recv(fd_, message, sizeof(message), 0) != sizeof(message)) Die("echo");
    return Now() - start;
  }

 private:
  int fd_ = -1;
};

struct Connects {
  std::vector<int64_t> bare;
  std::vector<int64_t> seen;
  std::vector<int64_t> asked;  // an idle process
};

// By turns, after some that do not count.
Connects TimeConnects(const sockaddr_in& to, int rounds, int before, const Echo* echo) {
  sockaddr_in plain_to = to;
  plain_to.sin_port = htons(static_cast<uint16_t>(ntohs(to.sin_port) + 1));
  Connects times;
  for (int i = -before; i < rounds; ++i) {
    const int64_t first = TimedConnect(plain_to, kBare);
    const int64_t second = TimedConnect(to, kSeen);
    const int64_t third = echo != nullptr ? echo->TimedExchange() : 0;
    if (i < 0) continue;
    times.asked.push_back(third);
    times.bare.push_back(first);
    times.seen.push_back(second);
  }
  return times;
}

void MeasureConnect(const sockaddr_in& to, int rounds) {
  const Echo echo;
  Connects times = TimeConnects(to, rounds, 100, &echo);
  for (const auto& [percent, aim] : {std::pair{50, 60}, std::pair{99, 250}}) {
    const int64_t plain = Percentile(times.bare, percent);
    const int64_t through = Percentile(times.seen, percent);
    std::printf(
        "connect, p%d              %10.1f us %10.1f us %+10.1f us   (aim: %d us; a message to "
        "an idle process and back: %.1f us)\n",
        percent, Micro(plain), Micro(through), Micro(through - plain), aim,
        Micro(Percentile(times.asked, percent)));
  }
}

// One of several programs, each of which makes its connects while the others wait.
int TakeTurns(const sockaddr_in& to, int blocks, const char* mine, const char* next) {
  constexpr int kConnects = 50;
  constexpr int kFirst = 10;  // which find the caches as the program before left them
  constexpr int kPatienceMs = 10'000;
  // For both, so that neither end waits for the other, or sees it go.
  pollfd in{open(mine, O_RDWR | O_CLOEXEC), POLLIN, 0};
  const int out = open(next, O_RDWR | O_CLOEXEC);
  if (in.fd < 0 || out < 0) Die("turns");
  for (int i = 0; i < blocks; ++i) {
    char octet = 0;
    if (poll(&in, 1, kPatienceMs) != 1 || read(in.fd, &octet, 1) != 1) Die("nobody's turn is over");
    Connects times = TimeConnects(to, kConnects, kFirst, nullptr);
    std::printf("%" PRId64 " %" PRId64 "\n", Percentile(times.bare, 50),
                Percentile(times.seen, 50));
    if (write(out, &octet, 1) != 1) Die(next);
  }
  return 0;
}

// Times `call(libc)` in blocks by turns; prints the medians of a call's time.
template <typename Call>
void MeasureCall(const char* name, int aim, Call call) {
  constexpr int kBlocks = 300;
  constexpr int kCalls = 500;
  const Libc* const ways[] = {&kBare, &kSeen, &kWrapped};
  std::vector<int64_t> times[std::size(ways)];
  for (int block = 0; block < kBlocks; ++block) {
    for (size_t way = 0; way < std::size(ways); ++way) {
      const int64_t start = Now();
      for (int i = 0; i < kCalls; ++i) call(*ways[way]);
      times[way].push_back((Now() - start) * 10 / kCalls);
    }
  }
  double median[std::size(ways)];
  for (size_t way = 0; way < std::size(ways); ++way) {
    median[way] = static_cast<double>(Percentile(times[way], 50)) / 10;
  }
  std::printf("%-26s %9.1f ns %10.1f ns %+10.1f ns   (aim: %d ns; an empty wrapper: %+.1f ns)\n",
              name, median[0], median[1], median[1] - median[0], aim, median[2] - median[0]);
}

void MeasureCalls(const sockaddr_in& to) {
  const int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un nobody{};
  nobody.sun_family = AF_UNIX;
  std::strcpy(nobody.sun_path + 1, "latchkey-bench-nobody");
  MeasureCall("connect, AF_UNIX, refused", 50, [&](const Libc& libc) {
    libc.connect(local, reinterpret_cast<const sockaddr*>(&nobody), sizeof(nobody));
  });
  const int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const sockaddr_in loopback = Endpoint("127.0.0.1", "9");
  MeasureCall("connect, bypassed", 50, [&](const Libc& libc) {
    libc.connect(datagram, reinterpret_cast<const sockaddr*>(&loopback), sizeof(loopback));
  });
  const int loose = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  MeasureCall("sendto, bypassed", 50, [&](const Libc& libc) {
    libc.sendto(loose, "", 0, 0, reinterpret_cast<const sockaddr*>(&loopback), sizeof(loopback));
  });
  MeasureCall("dup and close, no socket", 50,
              [&](const Libc& libc) { libc.close(libc.dup(STDOUT_FILENO)); });
  const int fd = NewSocket();
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) Die("connect");
  char octet = 0;
  if (recv(fd, &octet, 1, MSG_PEEK) != 1) Die("recv");
  const auto data = [&](const char* send, const char* recv) {
    MeasureCall(send, 5, [&](const Libc& libc) {
      if (libc.send(fd, &octet, 0, MSG_DONTWAIT | MSG_NOSIGNAL) != 0) Die("send");
    });
    MeasureCall(recv, 5, [&](const Libc& libc) {
      if (libc.recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) != 1) Die("recv");
    });
  };
  data("send, latched", "recv, latched");
  // The shim leaves these calls to libc, as cancellation points, once there are two.
  std::thread([] { pause(); }).detach();
  data("send, latched, two threads", "recv, latched, two threads");
}

// All of them fail, or have nothing to do.
int MeasureRare() {
  const int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  MeasureCall("accept, AF_UNIX, no name", 50,
              [&](const Libc& libc) { libc.accept(local, nullptr, nullptr); });
  const int stream = NewSocket();
  const sockaddr_in any = Endpoint("127.0.0.1", "0");
  MeasureCall("bind, TCP, again", 50, [&](const Libc& libc) {
    libc.bind(stream, reinterpret_cast<const sockaddr*>(&any), sizeof(any));
  });
  MeasureCall("close_range of nothing", 50,
              [](const Libc& libc) { libc.close_range(500, 501, 0); });
  return 0;
}

// Connects to addresses that nobody has connected to before: what goes beyond the negotiation,
// whose time is bench_broker's, is Latchkey's own.
void MeasureKeyless(sockaddr_in to) {
  constexpr int64_t kFast = 20'000'000;
  constexpr int64_t kSlow = 300'000'000;
  constexpr int64_t kInline = 100'000'000;  // how long a non-blocking connect may wait at once
  const auto* address = reinterpret_cast<const sockaddr*>(&to);
  std::vector<int64_t> blocking;
  std::vector<int64_t> back;
  std::vector<int64_t> writable;
  for (int i = 1; i <= 100; ++i) {
    to.sin_addr.s_addr = htonl(0x0a090100U + static_cast<uint32_t>(i));
    blocking.push_back(TimedConnect(to, kSeen) - kFast);
  }
  for (int i = 1; i <= 100; ++i) {
    to.sin_addr.s_addr = htonl(0x0a090200U + static_cast<uint32_t>(i));
    const int fd = NewSocket();
    fcntl(fd, F_SETFL, O_NONBLOCK);
    const int64_t start = Now();
    if (connect(fd, address, sizeof(to)) == 0 || errno != EINPROGRESS) Die("connect");
    back.push_back(Now() - start - kInline);
    pollfd watched{fd, POLLOUT, 0};
    int error = -1;
    socklen_t length = sizeof(error);
    if (poll(&watched, 1, 5000) != 1) Die("poll");
    writable.push_back(Now() - start - kSlow);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) Die("SO_ERROR");
    close(fd);
  }
  const auto line = [](const char* name, std::vector<int64_t>& values, double aim) {
    const int64_t half = Percentile(values, 50);
    std::printf("%-47s p50 %8.2f ms, p99 %8.2f ms   (aim: %g ms)\n", name, Micro(half) / 1000,
                Micro(Percentile(values, 99)) / 1000, aim);
  };
  line("connect, no SA yet: beyond the key exchange", blocking, 5);
  line("the same, non-blocking: back beyond its 100 ms", back, 5);
  line("the same, writable after the SA is there", writable, 400);
}

int Trace(const sockaddr_in& to) {
  const int fd = NewSocket();
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) Die("connect");
  char octets[64] = {};
  getppid();
  for (int i = 0; i < 500; ++i) {
    if (send(fd, octets, sizeof(octets), MSG_NOSIGNAL) < 0) Die("send");
    if (write(fd, octets, 1) < 0) Die("write");
    if (recv(fd, octets, 1, MSG_PEEK) != 1) Die("recv");
  }
  if (read(fd, octets, 1) != 1) Die("read");
  getppid();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc >= 4 ? argv[1] : "";
  if (verb == "serve") return Serve(Endpoint(argv[2], argv[3]));
  if (verb == "rare") return MeasureRare();
  if (verb == "trace") return Trace(Endpoint(argv[2], argv[3]));
  if (verb == "measure" && argc == 5) {
    MeasureConnect(Endpoint(argv[2], argv[3]), std::max(100, std::atoi(argv[4])));
    MeasureCalls(Endpoint(argv[2], argv[3]));
    return 0;
  }
  if (verb == "turns" && argc == 7) {
    return TakeTurns(Endpoint(argv[2], argv[3]), std::atoi(argv[4]), argv[5], argv[6]);
  }
  if (verb == "keyless") {
    MeasureKeyless(Endpoint(argv[2], argv[3]));
    return 0;
  }
  std::fprintf(stderr,
               "usage: connect serve|measure|turns|keyless|rare|trace ADDRESS PORT [N ...]\n");
  return 2;
}
