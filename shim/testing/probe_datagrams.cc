#include "shim/testing/probe_datagrams.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

int Udp() { return socket(AF_INET, SOCK_DGRAM, 0); }

}  // namespace

void ProbeUdpSends() {
  sockaddr_in address = Loopback(port);
  const auto to = reinterpret_cast<const sockaddr*>(&address);
  const int fd = Udp();
  Outcome("sendto", sendto(fd, "x", 1, 0, to, sizeof(address)));
  char octet = 'x';
  iovec part{&octet, 1};
  mmsghdr messages[2] = {};
  for (mmsghdr& each : messages) {
    each.msg_hdr.msg_name = &address;
    each.msg_hdr.msg_namelen = sizeof(address);
    each.msg_hdr.msg_iov = &part;
    each.msg_hdr.msg_iovlen = 1;
  }
  Outcome("sendmsg", sendmsg(fd, &messages[0].msg_hdr, 0));
  Outcome("sendmmsg", sendmmsg(fd, messages, 2, 0));
  address.sin_family = AF_UNSPEC;
  Outcome("unspecified", sendto(fd, "x", 1, 0, to, sizeof(address)));
  Outcome("connect", Connect(fd));
  Outcome("send", send(fd, "x", 1, 0));
}

void ProbeUdpAgain() {
  const int fd = Udp();
  errno = 77;
  const int result = Connect(fd);
  if (result == 0) Print("errno", errno);
  Outcome("first", result);
  Outcome("second", Connect(fd, static_cast<uint16_t>(port + 1)));
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  Outcome("disconnect", connect(fd, &none, sizeof(none)));
}

void ProbeUdpMany() {
  constexpr size_t kMost = 1024;
  constexpr size_t kSize = kMost * sizeof(mmsghdr);
  constexpr size_t kPage = 4096;
  static_assert(kSize % kPage == 0);
  auto* const mapped = static_cast<char*>(
      mmap(nullptr, kSize + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(mapped + kSize, kPage, PROT_NONE);
  sockaddr_in address = Loopback(port);
  char octet = 'x';
  iovec part{&octet, 1};
  auto* const messages = reinterpret_cast<mmsghdr*>(mapped);
  for (size_t i = 0; i < kMost; ++i) {
    messages[i].msg_hdr.msg_name = &address;
    messages[i].msg_hdr.msg_namelen = sizeof(address);
    messages[i].msg_hdr.msg_iov = &part;
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  Print("sendmmsg", sendmmsg(Udp(), messages, 2 * kMost, 0));
}

void ProbeUdpCopied(int (*copy)(int fd)) {
  const int fd = Udp();
  Outcome("first", Connect(fd));
  Outcome("second", Connect(copy(fd), static_cast<uint16_t>(port + 1)));
}

int ByDup(int fd) { return dup(fd); }

int ByFcntl(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }

int AfterVfork(int fd) {
  const pid_t child = vfork();
  if (child == 0) {
    close(fd);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  return fd;
}

void ProbeUdpTalks() {
  const int fd = Udp();
  Outcome("connect", Connect(fd));
  char text[8];
  constexpr size_t kSize = sizeof(text);
  iovec part{text, kSize};
  mmsghdr message{};
  message.msg_hdr.msg_iov = &part;
  message.msg_hdr.msg_iovlen = 1;
  Outcome("recv", recv(fd, text, kSize, MSG_DONTWAIT));
  Outcome("recvfrom", recvfrom(fd, text, kSize, MSG_DONTWAIT, nullptr, nullptr));
  Outcome("recvmsg", recvmsg(fd, &message.msg_hdr, MSG_DONTWAIT));
  shutdown(fd, SHUT_RDWR);
  Outcome("read", read(fd, text, kSize));
  Outcome("readv", readv(fd, &part, 1));
  // What programs call that were built with _FORTIFY_SOURCE.
  const auto fortified = [](const char* name) { return dlsym(RTLD_DEFAULT, name); };
  Outcome("__read_chk", reinterpret_cast<ssize_t (*)(int, void*, size_t, size_t)>(
                            fortified("__read_chk"))(fd, text, kSize, kSize));
  Outcome("__recv_chk", reinterpret_cast<ssize_t (*)(int, void*, size_t, size_t, int)>(
                            fortified("__recv_chk"))(fd, text, kSize, kSize, 0));
  Outcome("__recvfrom_chk",
          reinterpret_cast<ssize_t (*)(int, void*, size_t, size_t, int, sockaddr*, socklen_t*)>(
              fortified("__recvfrom_chk"))(fd, text, kSize, kSize, 0, nullptr, nullptr));
  Outcome("recvmmsg", recvmmsg(fd, &message, 1, 0, nullptr));
  Outcome("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Outcome("sendto", sendto(fd, "x", 1, MSG_NOSIGNAL, nullptr, 0));
  Outcome("sendmsg", sendmsg(fd, &message.msg_hdr, MSG_NOSIGNAL));
  Outcome("sendmmsg", sendmmsg(fd, &message, 1, MSG_NOSIGNAL));
  Outcome("write", write(fd, "x", 1));
  Outcome("writev", writev(fd, &part, 1));
}

}  // namespace latchkey::testing
