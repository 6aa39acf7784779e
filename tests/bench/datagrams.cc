// datagrams SHIM: what the shim adds to sends on an unconnected UDP socket that a broker holds, to
// a peer that it has been asked about, and to receiving with the latch of each datagram (root; the
// running kernel's loopback; a broker that says yes).
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "shim/latchkey.h"
#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace {

using latchkey::testing::FakeBroker;
using latchkey::testing::Probe;

constexpr int kBatch = 64;
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

// Measures libc's own function and what a call by name reaches, by turns; prints medians of one
// datagram, of which each call sends `each`.
template <typename Function, typename Call>
void Measure(const char* name, int aim, int each, Function* seen, Call call) {
  constexpr int kBlocks = 300;
  const int calls = 500 / each + 8;
  void* library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  const auto bare = reinterpret_cast<Function*>(dlsym(library, each == 1 ? "sendto" : "sendmmsg"));
  if (bare == nullptr) Die("libc");
  if (reinterpret_cast<void*>(bare) == reinterpret_cast<void*>(seen)) Die("no shim");
  double median[2];
  std::vector<double> times[2];
  for (int block = 0; block < kBlocks; ++block) {
    for (const int way : {0, 1}) {
      const int64_t start = Now();
      for (int i = 0; i < calls; ++i) call(way == 0 ? bare : seen);
      times[way].push_back(static_cast<double>(Now() - start) / calls / each);
    }
  }
  for (const int way : {0, 1}) {
    std::nth_element(times[way].begin(), times[way].begin() + kBlocks / 2, times[way].end());
    median[way] = times[way][kBlocks / 2];
  }
  std::printf("%-25s %10.1f ns %10.1f ns %+10.1f ns   (aim: %d ns)\n", name, median[0], median[1],
              median[1] - median[0], aim);
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int Bound(sockaddr_in& name) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  name = Loopback(0);
  socklen_t length = sizeof(name);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&name), length) != 0) Die("bind");
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length);
  return fd;
}

// One datagram from a marked socket, received: by libc's own function on a socket that tells no
// marks, and by name on one that is told latches; by turns, medians.
void MeasureReceived(int sender) {
  using Function = ssize_t(int, msghdr*, int);
  constexpr int kBlocks = 300;
  constexpr int kCalls = 200;
  void* library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  const auto bare = reinterpret_cast<Function*>(dlsym(library, "recvmsg"));
  if (bare == nullptr || bare == &::recvmsg) Die("no shim");
  const auto send = reinterpret_cast<decltype(&::sendto)>(dlsym(library, "sendto"));
  sockaddr_in names[2];
  const int fds[2] = {Bound(names[0]), Bound(names[1])};
  const int on = 1;
  if (setsockopt(fds[1], SOL_LATCHKEY, LATCHKEY_LATCHES, &on, sizeof(on)) != 0) Die("latches");
  std::vector<double> times[2];
  for (int block = 0; block < kBlocks; ++block) {
    for (const int way : {0, 1}) {
      for (int i = 0; i < kCalls; ++i) {
        send(sender, "x", 1, 0, reinterpret_cast<const sockaddr*>(&names[way]), sizeof(names[way]));
      }
      const int64_t start = Now();
      for (int i = 0; i < kCalls; ++i) {
        alignas(cmsghdr) char control[64];
        char octet;
        sockaddr_in from;
        iovec part{&octet, 1};
        msghdr message{&from, sizeof(from), &part, 1, control, sizeof(control), 0};
        if ((way == 0 ? bare : &::recvmsg)(fds[way], &message, MSG_DONTWAIT) != 1) Die("recvmsg");
        if (way == 1 && message.msg_controllen != CMSG_SPACE(sizeof(uint64_t))) Die("no latch");
      }
      times[way].push_back(static_cast<double>(Now() - start) / kCalls);
    }
  }
  double median[2];
  for (const int way : {0, 1}) {
    std::nth_element(times[way].begin(), times[way].begin() + kBlocks / 2, times[way].end());
    median[way] = times[way][kBlocks / 2];
  }
  std::printf("%-25s %10.1f ns %10.1f ns %+10.1f ns   (aim: 150 ns)\n", "recvmsg, with its latch",
              median[0], median[1], median[1] - median[0]);
}

void MeasureAll() {
  sockaddr_in to = Loopback(9);
  const auto* name = reinterpret_cast<const sockaddr*>(&to);
  constexpr socklen_t length = sizeof(to);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const sockaddr_in any = Loopback(0);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any)) != 0) Die("bind");
  Measure("sendto, held", 40, 1, &::sendto, [&](auto* call) {
    if (call(fd, "", 0, kProbe, name, length) != 0) Die("sendto");
  });
  std::vector<mmsghdr> batch(kBatch);
  for (mmsghdr& each : batch) {
    each.msg_hdr.msg_name = &to;
    each.msg_hdr.msg_namelen = length;
  }
  Measure("sendmmsg of 64, held, each", 25, kBatch, &::sendmmsg, [&](auto* call) {
    if (call(fd, batch.data(), kBatch, kProbe) != kBatch) Die("sendmmsg");
  });
  const int sender = socket(AF_INET, SOCK_DGRAM, 0);
  const uint32_t mark = 0x10000;  // as an SA's
  if (setsockopt(sender, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) Die("SO_MARK");
  MeasureReceived(sender);
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
  Probe probe("measure", 0, latchkey::testing::In(broker));
  const std::string said = probe.Finish();
  const int asked = broker.Count(latchkey::wire::Type::kPeer);
  std::fputs((said + probe.errors()).c_str(), stdout);
  if (said.find("status") != std::string::npos || asked > 0) Die("asked, or failed");
  return 0;
}
