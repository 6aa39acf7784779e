#include "tests/bench/spd_netns.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::bench {
namespace {

void Check(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::exit(1);
}

}  // namespace

uint32_t PeerAddress(uint32_t number) { return htonl(0x0a010000U + number); }

UniqueFd MakeSpdNetns(uint32_t peers, uint32_t mark) {
  const broker::TestNetns inside;
  FILE* batch = popen("ip -batch -", "w");
  Check(batch != nullptr, "ip");
  // Loopback is left alone by IPsec.
  std::fputs(
      "link add veth0 type veth peer name veth1\nlink set veth0 up\nlink set veth1 up\n"
      "address add 10.0.0.1/8 dev veth0\n",
      batch);
  const auto add = [&](const char* to, int prefix, const char* action) {
    std::fprintf(batch,
                 "xfrm policy add src 0.0.0.0/0 dst %s/%d proto udp sport %d dir out "
                 "mark 0x%x mask 0x%x action %s\n",
                 to, prefix, kHeldPort, mark, mark, action);
  };
  for (uint32_t i = 0; i < peers; ++i) {
    const in_addr address{PeerAddress(i)};
    char text[INET_ADDRSTRLEN];
    add(inet_ntop(AF_INET, &address, text, sizeof(text)), 32, "allow");
  }
  if (peers > 0) add("0.0.0.0", 0, "block");
  Check(pclose(batch) == 0, "ip -batch");
  UniqueFd netns(open("/proc/thread-self/ns/net", O_RDONLY));
  Check(static_cast<bool>(netns), "open the network namespace");
  return netns;
}

int SocketIn(int netns) {
  const UniqueFd outside(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  Check(outside && setns(netns, CLONE_NEWNET) == 0, "enter the network namespace");
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  Check(fd >= 0, "socket");
  Check(setns(outside.get(), CLONE_NEWNET) == 0, "leave the network namespace");
  return fd;
}

}  // namespace latchkey::bench
