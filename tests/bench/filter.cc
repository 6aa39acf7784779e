// What the filter on an unconnected UDP socket costs a datagram: sent and received over loopback,
// with the mark that an SA would give, to a socket without the filter and to ones with it, by
// turns.
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/datagram_filter.h"
#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

constexpr uint32_t kMask = 0x7fff0000;
constexpr uint32_t kTag = 0x7fff0000;
constexpr uint32_t kOther = 0x7ffe0000;
constexpr uint32_t kThird = 0x7ffd0000;
constexpr int kAtOnce = 64;  // fit into a receive buffer
constexpr int kRounds = 400;

struct Kind {
  const char* name;
  uint32_t admissions;
  uint32_t regions;
  uint32_t tag;
  TestUdp socket{"127.0.0.1"};
  std::vector<double> nanoseconds{};
};

void Check(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "bench: %s\n", what);
  std::exit(1);
}

Address Numbered(uint32_t number) {
  const uint32_t octets = htonl(0x0a000000 + number);
  return Address::FromV4(&octets);
}

void Prepare(DatagramFilter& filter, Kind& kind) {
  if (kind.admissions == 0) return;
  std::vector<DatagramRegion> regions = {
      {Prefix::Parse("0.0.0.0/0").value(), 0, DatagramRegion::Need::kTag}};
  for (uint32_t i = 1; i < kind.regions; ++i) {
    regions.push_back({{Numbered(i << 8), 24}, 0, DatagramRegion::Need::kPass});
  }
  const uint64_t cookie = kind.socket.cookie();
  Check(filter.Filter(kind.socket.fd(), cookie, regions).has_value(), "no filter");
  const auto begin = std::chrono::steady_clock::now();
  for (uint32_t i = 1; i < kind.admissions; ++i) {
    Check(filter.Admit({cookie, {Numbered(i), 0}, i << 16}).has_value(), "not admitted");
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
  Check(filter.Admit({cookie, {Address::Parse("127.0.0.1").value(), 0}, kind.tag}).has_value(),
        "not admitted");
  if (kind.admissions > 1) {
    std::printf("%-34s %8.2f us\n", "one admission", took.count() / (kind.admissions - 1));
  }
}

void Round(int sender, Kind& kind) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(kind.socket.port());
  char text[64] = {};
  Check(setsockopt(sender, SOL_SOCKET, SO_MARK, &kind.tag, sizeof(kind.tag)) == 0, "no mark");
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kAtOnce; ++i) {
    Check(sendto(sender, text, sizeof(text), 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)) > 0,
          "not sent");
  }
  for (int i = 0; i < kAtOnce; ++i) {
    Check(recv(kind.socket.fd(), text, sizeof(text), MSG_DONTWAIT) > 0, "not received");
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  kind.nanoseconds.push_back(took.count() / kAtOnce);
}

int Main() {
  const TestNetns netns;
  DatagramFilter filter({kMask, {}});
  Check(filter.Complaint().empty(), filter.Complaint().c_str());
  // Whoever comes second under a tag has no slot: it is searched.
  Kind kinds[] = {{"datagram, no filter", 0, 0, kTag},
                  {"filter, 1 admission", 1, 1, kTag},
                  {"filter, another of the same tag", 1, 1, kTag},
                  {"filter, 10,000 admissions", 10'000, 1, kOther},
                  {"filter, 10,000 and 1,000 regions", 10'000, 1'000, kThird}};
  for (Kind& kind : kinds) Prepare(filter, kind);
  const TestUdp sender("127.0.0.1");
  for (int i = 0; i < kRounds; ++i) {
    for (Kind& kind : kinds) Round(sender.fd(), kind);
  }
  double bare = 0;
  for (Kind& kind : kinds) {
    std::ranges::sort(kind.nanoseconds);
    const double median = kind.nanoseconds[kind.nanoseconds.size() / 2];
    if (bare == 0) bare = median;
    std::printf("%-34s %8.0f ns %+8.0f ns\n", kind.name, median, median - bare);
  }
  return 0;
}

}  // namespace
}  // namespace latchkey::broker

int main() { return latchkey::broker::Main(); }
