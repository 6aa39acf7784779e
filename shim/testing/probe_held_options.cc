#include "shim/testing/probe_held_options.h"

#include <linux/filter.h>
#include <netinet/udp.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "shim/testing/probe_held_tools.h"
#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

void Filters() {
  const int fd = Bound();
  sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, ~0U)};
  const sock_fprog program{1, all};
  const int zero = 0;
  const auto set = [&](const char* what, int option, const void* value, socklen_t size) {
    Outcome(what, setsockopt(fd, SOL_SOCKET, option, value, size));
  };
  set("attach", SO_ATTACH_FILTER, &program, sizeof(program));
  set("detach", SO_DETACH_FILTER, &zero, sizeof(zero));
  set("unlock", SO_LOCK_FILTER, &zero, sizeof(zero));
  set("mark", SO_MARK, &zero, sizeof(zero));
}

void Merges() {
  const auto set = [](const char* what, int fd, const void* value, socklen_t size) {
    Outcome(what, setsockopt(fd, IPPROTO_UDP, UDP_GRO, value, size));
  };
  const auto is = [](int fd) {
    int number = -1;
    socklen_t size = sizeof(number);
    getsockopt(fd, IPPROTO_UDP, UDP_GRO, &number, &size);
    Print("is", number);
  };
  const int one = 1;
  const int early = Udp();
  set("before", early, &one, sizeof(one));
  is(early);
  const int fd = Bound();
  set("set", fd, &one, sizeof(one));
  is(fd);
  Outcome("by number",
          static_cast<int>(syscall(SYS_setsockopt, fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one))));
  is(fd);
  set("short", fd, &one, 2);
  set("pointer", fd, reinterpret_cast<const void*>(64), sizeof(one));
  const int free = Udp();
  set("free", free, &one, sizeof(one));
  is(free);
  set("tcp", Tcp(), &one, sizeof(one));
}

// Messages with a mark of their own, among others.
void Marks() {
  sockaddr_in there = Loopback(port);
  char octet = 'x';
  iovec part{&octet, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in_pktinfo)) + CMSG_SPACE(sizeof(int))] = {};
  // The addresses first, as who answers has it.
  auto* const second = reinterpret_cast<cmsghdr*>(control + CMSG_SPACE(sizeof(in_pktinfo)));
  auto* const first = reinterpret_cast<cmsghdr*>(control);
  *first = {CMSG_LEN(sizeof(in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
  *second = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SO_MARK};
  const auto message = [&](size_t size) {
    msghdr made{};
    made.msg_name = &there;
    made.msg_namelen = sizeof(there);
    made.msg_iov = &part;
    made.msg_iovlen = 1;
    made.msg_control = size != 0 ? control : nullptr;
    made.msg_controllen = size;
    return made;
  };
  const msghdr plain = message(CMSG_SPACE(sizeof(in_pktinfo)));
  const msghdr marked = message(sizeof(control));
  const int fd = Bound();
  Outcome("plain", sendmsg(fd, &plain, 0));
  Outcome("marked", sendmsg(fd, &marked, 0));
  Outcome("by number", syscall(SYS_sendmsg, fd, &marked, 0));
  mmsghdr several[3] = {{plain, 0}, {message(0), 0}, {marked, 0}};
  errno = 77;
  Print("several", sendmmsg(fd, several, 3, 0));
  Print("errno", errno);
  Outcome("the rest", sendmmsg(fd, several + 2, 1, 0));
  Outcome("first sent", sendmsg(Udp(), &marked, 0));
}

}  // namespace

std::map<std::string, std::function<void()>> HeldOptionProbes() {
  return {{"held-filters", Filters}, {"held-merges", Merges}, {"held-marks", Marks}};
}

}  // namespace latchkey::testing
