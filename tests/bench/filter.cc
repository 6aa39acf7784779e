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
#include <span>
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
  std::vector<double> nanoseconds{};  // of a datagram
  std::vector<double> at_once{};      // of one of 64 by one call each
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

// How long the broker takes to tell the filter of the 1,000th peer that it was asked about by its
// port; and to give a socket with as many all its regions anew.
void Change(DatagramFilter& filter) {
  const TestUdp socket("127.0.0.1");
  std::vector<DatagramRegion> regions = {
      {Prefix::Parse("0.0.0.0/0").value(), 0, DatagramRegion::Need::kTag}};
  for (uint32_t i = 1; i < 1'000; ++i) {
    regions.push_back({{Numbered(i), 32}, 5000, DatagramRegion::Need::kPass});
  }
  std::vector<double> one;
  std::vector<double> all;
  const auto change = [&](std::vector<double>& took) {
    const auto begin = std::chrono::steady_clock::now();
    Check(filter.Filter(socket.fd(), socket.cookie(), regions).has_value(), "no filter");
    took.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
            .count());
  };
  for (int i = 0; i < 200; ++i) {
    regions[0].same_host = !regions[0].same_host;
    change(all);
    regions.push_back({{Numbered(1'000), 32}, 5000, DatagramRegion::Need::kPass});
    change(one);
    regions.pop_back();
    change(one);
  }
  std::ranges::sort(one);
  std::ranges::sort(all);
  std::printf("%-34s %8.2f us\n", "one peer by its port, of 1,000", one[one.size() / 2]);
  std::printf("%-34s %8.2f us\n", "1,000 of them anew", all[all.size() / 2]);
}

sockaddr_in NameOf(const Kind& kind) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(kind.socket.port());
  return to;
}

void Round(int sender, Kind& kind) {
  sockaddr_in to = NameOf(kind);
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

// The same by sendmmsg and recvmmsg.
void RoundAtOnce(int sender, Kind& kind) {
  sockaddr_in to = NameOf(kind);
  char text[64] = {};
  iovec part{text, sizeof(text)};
  mmsghdr sent[kAtOnce] = {};
  mmsghdr received[kAtOnce] = {};
  for (int i = 0; i < kAtOnce; ++i) {
    sent[i].msg_hdr.msg_name = &to;
    sent[i].msg_hdr.msg_namelen = sizeof(to);
    sent[i].msg_hdr.msg_iov = received[i].msg_hdr.msg_iov = &part;
    sent[i].msg_hdr.msg_iovlen = received[i].msg_hdr.msg_iovlen = 1;
  }
  Check(setsockopt(sender, SOL_SOCKET, SO_MARK, &kind.tag, sizeof(kind.tag)) == 0, "no mark");
  const auto begin = std::chrono::steady_clock::now();
  Check(sendmmsg(sender, sent, kAtOnce, 0) == kAtOnce, "not all sent");
  Check(recvmmsg(kind.socket.fd(), received, kAtOnce, MSG_DONTWAIT, nullptr) == kAtOnce,
        "not all received");
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  kind.at_once.push_back(took.count() / kAtOnce);
}

// The first kind is what the others are beside; `aim`: nanoseconds that those may add.
void Print(const char* what, int aim, std::vector<double> Kind::*times, std::span<Kind> kinds) {
  std::printf("%s (aim: %d ns of each)\n", what, aim);
  double bare = 0;
  for (Kind& kind : kinds) {
    std::vector<double>& values = kind.*times;
    std::ranges::sort(values);
    const double median = values[values.size() / 2];
    if (bare == 0) bare = median;
    std::printf("%-34s %8.0f ns %+8.0f ns\n", kind.name, median, median - bare);
  }
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
  Change(filter);
  const TestUdp sender("127.0.0.1");
  for (int i = 0; i < kRounds; ++i) {
    for (Kind& kind : kinds) Round(sender.fd(), kind);
    for (Kind& kind : kinds) RoundAtOnce(sender.fd(), kind);
  }
  Print("datagrams, sent and received", 150, &Kind::nanoseconds, kinds);
  Print("the same, 64 by one sendmmsg and one recvmmsg", 25, &Kind::at_once, kinds);
  return 0;
}

}  // namespace
}  // namespace latchkey::broker

int main() { return latchkey::broker::Main(); }
