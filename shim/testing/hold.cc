#include "shim/testing/hold.h"

#include <linux/filter.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <initializer_list>

namespace latchkey::testing {
namespace {

void SetOption(int fd, int level, int option, const void* value, socklen_t size) {
  if (setsockopt(fd, level, option, value, size) == 0) return;
  std::perror("hold");
  std::abort();
}

struct SocketPolicy {
  xfrm_userpolicy_info info;
  xfrm_user_tmpl under;
};

}  // namespace

void HoldSocket(int fd, uint32_t mark, uint16_t port, Want want) {
  SetOption(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
  sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, ~0U)};
  const sock_fprog program{1, all};
  const int one = 1;
  // Held once more, it has that.
  int locked = 0;
  socklen_t size = sizeof(locked);
  getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &locked, &size);
  if (locked == 0) {
    SetOption(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
    SetOption(fd, SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof(one));
  }
  if (want == Want::kNothing) return;
  SocketPolicy policy{};
  xfrm_selector& selector = policy.info.sel;
  selector.family = AF_INET;
  selector.daddr.a4 = htonl(INADDR_LOOPBACK);
  selector.prefixlen_d = 32;
  selector.dport = htons(port);
  selector.dport_mask = 0xffff;
  selector.proto = IPPROTO_UDP;
  policy.info.dir = XFRM_POLICY_OUT;
  policy.info.action = want == Want::kEntry ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW;
  for (auto* limit : {&policy.info.lft.soft_byte_limit, &policy.info.lft.hard_byte_limit,
                      &policy.info.lft.soft_packet_limit, &policy.info.lft.hard_packet_limit}) {
    *limit = XFRM_INF;
  }
  policy.under.id.proto = IPPROTO_ESP;
  policy.under.family = AF_INET;
  policy.under.mode = XFRM_MODE_TRANSPORT;
  policy.under.aalgos = policy.under.ealgos = policy.under.calgos = ~0U;
  const socklen_t length = want == Want::kKeys ? sizeof(policy) : sizeof(policy.info);
  SetOption(fd, IPPROTO_IP, IP_XFRM_POLICY, &policy, length);
}

void LetThrough(int fd) { SetOption(fd, IPPROTO_IP, IP_XFRM_POLICY, nullptr, 0); }

}  // namespace latchkey::testing
