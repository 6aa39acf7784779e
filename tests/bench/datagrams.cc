// datagrams SHIM: what the shim adds to sends on an unconnected UDP socket that a broker holds, to
// a peer that it has been asked about, what the SPD entries of 10,000 such peers add, and what the
// shim adds to receiving, without and with the latch of each datagram (root; the running kernel's
// loopback and, for the entries, a device of its own; a broker that says yes).
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "shim/latchkey.h"
#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"
#include "tests/bench/spd_netns.h"

namespace {

using latchkey::testing::FakeBroker;
using latchkey::testing::Probe;

constexpr int kBatch = 64;
constexpr uint32_t kPeers = 10'000;
constexpr uint32_t kGuardMark = 0x80000000;  // as of FakeBroker
// The kernel does all but send: what a network device and a receiver take would drown the rest.
constexpr int kProbe = MSG_CONFIRM | 0x10;  // MSG_PROBE of linux/socket.h; of no octets

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

int64_t Now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

// libc's own function, past the shim.
template <typename Function>
Function* Libc(const char* name, Function* seen) {
  void* library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  const auto bare = reinterpret_cast<Function*>(dlsym(library, name));
  if (bare == nullptr) Die("libc");
  if (reinterpret_cast<void*>(bare) == reinterpret_cast<void*>(seen)) Die("no shim");
  return bare;
}

// Times rounds of way 0, which is bare, and way 1 by turns: round(way) returns the nanoseconds of
// one datagram. Prints the medians. `aim` 0: there is none.
template <typename Round>
void Compare(const char* name, int aim, Round round) {
  constexpr int kBlocks = 300;
  std::vector<double> times[2];
  for (int block = 0; block < kBlocks; ++block) {
    for (const int way : {0, 1}) times[way].push_back(round(way));
  }
  double median[2];
  for (const int way : {0, 1}) {
    std::nth_element(times[way].begin(), times[way].begin() + kBlocks / 2, times[way].end());
    median[way] = times[way][kBlocks / 2];
  }
  std::printf("%-29s %6.1f ns %10.1f ns %+10.1f ns", name, median[0], median[1],
              median[1] - median[0]);
  std::printf(aim != 0 ? "   (aim: %d ns)\n" : "\n", aim);
}

// Of calls that send `each` datagrams: call(way).
template <typename Call>
void MeasureSent(const char* name, int aim, int each, Call call) {
  const int calls = 500 / each + 8;
  Compare(name, aim, [&](int way) {
    const int64_t start = Now();
    for (int i = 0; i < calls; ++i) call(way);
    return static_cast<double>(Now() - start) / calls / each;
  });
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Bound by name, so that it is held; or past the shim, so that it is not.
int Bound(sockaddr_in& name, bool held = true) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  name = Loopback(0);
  socklen_t length = sizeof(name);
  auto* const bind_it = held ? &::bind : Libc("bind", &::bind);
  if (bind_it(fd, reinterpret_cast<const sockaddr*>(&name), length) != 0) Die("bind");
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length);
  return fd;
}

void WantLatches(int fd) {
  const int on = 1;
  if (setsockopt(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, &on, sizeof(on)) != 0) Die("latches");
}

struct Letter {
  alignas(cmsghdr) char control[64];
  char octet;
  sockaddr_in from;
  iovec part{&octet, 1};

  msghdr Header() { return {&from, sizeof(from), &part, 1, control, sizeof(control), 0}; }
};

// What a receiver has it by: `fds` of way 0 and 1, and whether the latter is to get latches.
struct Receivers {
  sockaddr_in names[2];
  int fds[2];
  bool latches;

  Receivers(bool first_held, bool with_latches) : latches(with_latches) {
    fds[0] = Bound(names[0], first_held);
    fds[1] = Bound(names[1]);
    if (latches) WantLatches(fds[1]);
  }
  void Fill(int sender, int way, int count) const {
    static const auto send = Libc("sendto", &::sendto);
    for (int i = 0; i < count; ++i) {
      send(sender, "x", 1, 0, reinterpret_cast<const sockaddr*>(&names[way]), sizeof(names[way]));
    }
  }
  void Check(int way, const msghdr& message) const {
    const size_t wanted = way == 1 && latches ? CMSG_SPACE(sizeof(uint64_t)) : 0;
    if (message.msg_controllen != wanted) Die("latch");
  }
};

// From a marked socket, received one by one: by libc's own function on a socket that tells no
// marks, and by name on one that is told latches.
void MeasureReceived(int sender) {
  constexpr int kCalls = 200;
  const auto bare = Libc("recvmsg", &::recvmsg);
  const Receivers receivers(/*first_held=*/true, /*with_latches=*/true);
  Compare("recvmsg, with its latch", 150, [&](int way) {
    receivers.Fill(sender, way, kCalls);
    const int64_t start = Now();
    for (int i = 0; i < kCalls; ++i) {
      Letter letter;
      msghdr message = letter.Header();
      if ((way == 0 ? bare : &::recvmsg)(receivers.fds[way], &message, MSG_DONTWAIT) != 1) {
        Die("recvmsg");
      }
      receivers.Check(way, message);
    }
    return static_cast<double>(Now() - start) / kCalls;
  });
}

// The same, 64 at once; `latches`: with theirs, else of a socket that is held and no more.
void MeasureReceivedBatch(int sender, bool latches) {
  const auto bare = Libc("recvmmsg", &::recvmmsg);
  const Receivers receivers(/*first_held=*/false, latches);
  std::vector<Letter> letters(kBatch);
  std::vector<mmsghdr> batch(kBatch);
  const char* const name = latches ? "recvmmsg of 64, latches, each" : "recvmmsg of 64, held, each";
  Compare(name, 25, [&](int way) {
    double taken = 0;
    for (int i = 0; i < 3; ++i) {
      receivers.Fill(sender, way, kBatch);
      const int64_t start = Now();
      for (int j = 0; j < kBatch; ++j) batch[j].msg_hdr = letters[j].Header();
      const auto call = way == 0 ? bare : &::recvmmsg;
      if (call(receivers.fds[way], batch.data(), kBatch, MSG_DONTWAIT, nullptr) != kBatch) {
        Die("recvmmsg");
      }
      taken += static_cast<double>(Now() - start) / kBatch / 3;
      for (const mmsghdr& each : batch) receivers.Check(way, each.msg_hdr);
    }
    return taken;
  });
}

// To each of so many peers in turn, through the SPD: by libc's own function from the first socket,
// by the same or by name from the second.
void MeasurePeers(const char* name, int aim, int first, int second, uint32_t peers, bool by_name) {
  const int fds[2] = {first, second};
  const auto bare = Libc("sendto", &::sendto);
  sockaddr_in to = Loopback(9);
  uint32_t number = 0;
  MeasureSent(name, aim, 1, [&](int way) {
    number = (number + 6151) % peers;  // prime: neighbours are not sent to in a row
    to.sin_addr.s_addr = latchkey::bench::PeerAddress(number);
    const auto call = way == 1 && by_name ? &::sendto : bare;
    const auto* where = reinterpret_cast<const sockaddr*>(&to);
    if (call(fds[way], "", 0, kProbe, where, sizeof(to)) != 0) Die("sendto");
  });
}

// What is bare is beside an SPD with entries, though they are not about it: as on any host that has
// IPsec. What that costs by itself comes last.
void MeasureEntries() {
  const auto there = [](const char* name) { return open(getenv(name), O_RDONLY | O_CLOEXEC); };
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(latchkey::bench::kHeldPort);
  const auto bound = [&at](int netns, auto* bind_it) {
    const int fd = latchkey::bench::SocketIn(netns);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind_it(fd, reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0) Die("bind");
    return fd;
  };
  const auto past = Libc("bind", &::bind);
  const int one = there("ONE");
  const int crowd = there("CROWD");
  const int plain = bound(there("NOBODY"), past);
  const int beside_one = bound(one, past);
  const int beside_many = bound(crowd, past);
  const int has_one = bound(one, &::bind);
  const int has_many = bound(crowd, &::bind);
  // Its entries are what lets it send.
  sockaddr_in nobody = Loopback(9);
  nobody.sin_addr.s_addr = latchkey::bench::PeerAddress(kPeers);
  const auto send = Libc("sendto", &::sendto);
  const auto* where = reinterpret_cast<const sockaddr*>(&nobody);
  if (send(has_many, "", 0, kProbe, where, sizeof(nobody)) == 0 || errno != EPERM) {
    Die("no entries");
  }
  // What has the mark meets the same entries, without a shim and held by nobody: as under IPsec by
  // the SPD, which has an entry for each peer too.
  const auto marked = [&](int netns) {
    const int fd = bound(netns, past);
    const uint32_t mark = kGuardMark;
    if (Libc("setsockopt", &::setsockopt)(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) {
      Die("SO_MARK");
    }
    return fd;
  };
  MeasurePeers("the same, by entries too, of 1", 40, marked(one), has_one, 1, /*by_name=*/true);
  MeasurePeers("the same, of 10,000", 80, marked(crowd), has_many, kPeers, /*by_name=*/true);
  MeasurePeers("sendto, held, of 1 peer", 0, beside_one, has_one, 1, /*by_name=*/true);
  MeasurePeers("sendto, held, of 10,000", 0, beside_one, has_many, kPeers, /*by_name=*/true);
  MeasurePeers("bare, beside those entries", 0, beside_one, beside_many, kPeers, false);
  MeasurePeers("bare, SPD empty or with one", 0, plain, beside_one, kPeers, false);
}

void MeasureAll() {
  sockaddr_in to = Loopback(9);
  const auto* name = reinterpret_cast<const sockaddr*>(&to);
  constexpr socklen_t length = sizeof(to);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const sockaddr_in any = Loopback(0);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any)) != 0) Die("bind");
  const auto bare_sendto = Libc("sendto", &::sendto);
  MeasureSent("sendto, held", 40, 1, [&](int way) {
    const auto call = way == 0 ? bare_sendto : &::sendto;
    if (call(fd, "", 0, kProbe, name, length) != 0) Die("sendto");
  });
  std::vector<mmsghdr> batch(kBatch);
  for (mmsghdr& each : batch) {
    each.msg_hdr.msg_name = &to;
    each.msg_hdr.msg_namelen = length;
  }
  const auto bare_sendmmsg = Libc("sendmmsg", &::sendmmsg);
  MeasureSent("sendmmsg of 64, held, each", 25, kBatch, [&](int way) {
    const auto call = way == 0 ? bare_sendmmsg : &::sendmmsg;
    if (call(fd, batch.data(), kBatch, kProbe) != kBatch) Die("sendmmsg");
  });
  MeasureEntries();
  const int sender = socket(AF_INET, SOCK_DGRAM, 0);
  const uint32_t mark = 0x10000;  // as an SA's
  if (setsockopt(sender, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) Die("SO_MARK");
  MeasureReceivedBatch(sender, /*latches=*/false);
  MeasureReceived(sender);
  MeasureReceivedBatch(sender, /*latches=*/true);
}

// How a process that gets no descriptors of ours finds this one.
std::string PathOf(const latchkey::UniqueFd& fd) {
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd.get());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  if (std::string(argv[1]) == "measure") {
    MeasureAll();
    return 0;
  }
  setenv("PROBE", "/proc/self/exe", 1);
  setenv("SHIM", argv[1], 1);
  FakeBroker broker;
  latchkey::wire::Page& page = broker.page();
  page.rules[0].protocol = IPPROTO_UDP;
  page.rules[0].settle = latchkey::wire::Settle::kProtect;
  page.rules[0].port_high = 65535;
  page.rule_count = 1;
  page.flags = latchkey::wire::kPageHold | latchkey::wire::kPageDatagramRules;
  broker.SetHold(1, latchkey::testing::Want::kNothing);
  broker.Set(latchkey::wire::Type::kLatches, {.verdict = latchkey::wire::Verdict::kBypass});
  broker.SetTold(/*connected=*/false);
  const uint32_t mark = page.guard_mark;
  const latchkey::UniqueFd nobody = latchkey::bench::MakeSpdNetns(0, mark);
  const latchkey::UniqueFd one = latchkey::bench::MakeSpdNetns(1, mark);
  const latchkey::UniqueFd crowd = latchkey::bench::MakeSpdNetns(kPeers, mark);
  std::map<std::string, std::string> environment = latchkey::testing::In(broker);
  environment.insert({{"NOBODY", PathOf(nobody)}, {"ONE", PathOf(one)}, {"CROWD", PathOf(crowd)}});
  Probe probe("measure", 0, environment);
  const std::string said = probe.Finish();
  const int asked = broker.Count(latchkey::wire::Type::kPeer);
  std::fputs((said + probe.errors()).c_str(), stdout);
  if (said.find("status") != std::string::npos || asked > 0) Die("asked, or failed");
  return 0;
}
