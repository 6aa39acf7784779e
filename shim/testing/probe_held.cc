#include "shim/testing/probe_held.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/udp.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "shim/testing/probe_held_tools.h"
#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

uint16_t Other() { return static_cast<uint16_t>(port + 1); }

void Binds() {
  const int fd = Udp();
  errno = 77;
  const int result = Bind(fd);
  if (result == 0) Print("errno", errno);
  Outcome("bind", result);
  Outcome("again", Bind(fd));
  const sockaddr_in any = Loopback(0);
  Outcome("syscall", syscall(SYS_bind, Udp(), &any, sizeof(any)));
  Outcome("tcp", bind(Tcp(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)));
  Outcome("pointer", bind(Udp(), reinterpret_cast<const sockaddr*>(1), sizeof(any)));
  Outcome("raw", Bind(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)));
}

// A bound socket sends three times to one place, then to another one.
void BoundSends() {
  const int fd = Bound();
  for (int i = 0; i < 3; ++i) {
    errno = 77;
    const long sent = Send(fd);
    if (sent == 1) Print("errno", errno);
    Outcome("send", sent);
  }
  Outcome("other", Send(fd, Other()));
  Outcome("other", Send(fd, Other()));
}

void FreeSends() {
  const int fd = Udp();
  Outcome("send", Send(fd));
  Outcome("send", Send(fd));
  Outcome("other", Send(fd, Other()));
  Outcome("other", Send(fd, Other()));
}

// Every way to send to the server from a socket of its own.
void Ways() {
  sockaddr_in address = Loopback(port);
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  char octet = 'x';
  iovec part{&octet, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = {};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = sizeof(address);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Outcome("sendto", syscall(SYS_sendto, Udp(), "x", 1, 0, to, sizeof(address)));
  Outcome("sendmsg", syscall(SYS_sendmsg, Udp(), &message, 0));
  mmsghdr batch{message, 0};
  Outcome("sendmmsg", syscall(SYS_sendmmsg, Udp(), &batch, 1, 0));
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* segments = CMSG_FIRSTHDR(&message);
  segments->cmsg_level = IPPROTO_UDP;
  segments->cmsg_type = UDP_SEGMENT;
  segments->cmsg_len = CMSG_LEN(sizeof(uint16_t));
  const uint16_t size = 1000;
  std::memcpy(CMSG_DATA(segments), &size, sizeof(size));
  Outcome("segments", sendmsg(Udp(), &message, 0));
  const int corked = Udp();
  Outcome("more", Send(corked, port, MSG_MORE));
  Outcome("rest", Send(corked));
  const int dual = socket(AF_INET6, SOCK_DGRAM, 0);
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = htons(port);
  mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
  std::memcpy(&mapped.sin6_addr.s6_addr[12], &address.sin_addr, sizeof(address.sin_addr));
  Outcome("mapped",
          sendto(dual, "x", 1, 0, reinterpret_cast<const sockaddr*>(&mapped), sizeof(mapped)));
  address.sin_family = AF_UNSPEC;
  Outcome("unspecified", sendto(Udp(), "x", 1, 0, to, sizeof(address)));
  address.sin_family = AF_INET;
  const int connected = Udp();
  connect(connected, to, sizeof(address));
  Outcome("connected", sendto(connected, "x", 1, 0, to, sizeof(address)));
}

// Three at once, the second one to the other port; then what was left.
void Batch() {
  const int fd = Bound();
  sockaddr_in addresses[3] = {Loopback(port), Loopback(Other()), Loopback(port)};
  char octet = 'x';
  iovec part{&octet, 1};
  mmsghdr messages[3] = {};
  for (int i = 0; i < 3; ++i) {
    messages[i].msg_hdr.msg_name = &addresses[i];
    messages[i].msg_hdr.msg_namelen = sizeof(addresses[i]);
    messages[i].msg_hdr.msg_iov = &part;
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  errno = 77;
  Print("sent", sendmmsg(fd, messages, 3, 0));
  Print("errno", errno);
  const int rest = sendmmsg(fd, messages + 1, 2, 0);
  Print("rest", rest < 0 ? -errno : rest);
}

// A system call that no hook sees.
long Unseen(long number, long first) {
  long result = number;
  __asm__ volatile("syscall" : "+a"(result) : "D"(first) : "rcx", "r11", "memory");
  return result;
}

// Takes a held socket's number away in all ways there are; what gets it then is not held.
void Numbers() {
  const auto next = [](const char* way, int number, int fd) {
    if (fd != number) return Print("another number", fd);
    Outcome(way, Send(fd));
  };
  const auto held = [] {
    const int fd = Bound();
    if (Send(fd) != 1) Print("not held", errno);
    return fd;
  };
  const int loose = Udp();
  int fd = held();
  close(fd);
  next("close", fd, Udp());
  close(fd);
  fd = held();
  syscall(SYS_close, fd);
  next("close by syscall", fd, dup(loose));
  close(fd);
  fd = held();
  next("dup2", fd, dup2(loose, fd));
  close(fd);
  fd = held();
  next("dup3", fd, dup3(loose, fd, O_CLOEXEC));
  close(fd);
  fd = held();
  close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), 0);
  next("close_range", fd, fcntl(loose, F_DUPFD, 0));
  close(fd);
  fd = held();
  syscall(SYS_dup2, loose, fd);
  next("dup2 by syscall", fd, fd);
  close(fd);
  fd = held();
  syscall(SYS_dup3, loose, fd, O_CLOEXEC);
  next("dup3 by syscall", fd, fd);
  close(fd);
  fd = held();
  syscall(SYS_close_range, fd, fd, 0);
  next("close_range by syscall", fd, fcntl(loose, F_DUPFD, 0));
  close(fd);
  fd = held();
  closefrom(fd);
  next("closefrom", fd, dup(loose));
  close(fd);
  fd = held();
  fclose(fdopen(fd, "w"));
  next("fclose", fd, dup(loose));
  close(fd);
  fd = held();
  Unseen(SYS_close, fd);
  next("close unseen", fd, Udp());
  close(fd);
  // A child that shares our memory, and the number with its socket, and not our descriptors.
  fd = held();
  if (const pid_t child = vfork(); child == 0) {
    dup2(fd, loose);
    _exit(0);
  } else {
    waitpid(child, nullptr, 0);
  }
  next("vfork", loose, loose);
  // From here on several sockets may have one number.
  Outcome("before", Send(fd));
  unshare(CLONE_FILES);
  Outcome("unshare", Send(fd));
}

// Half of the threads make held sockets and close them, the others make loose ones, which often get
// their numbers; counts what of these was sent all the same.
void Threads() {
  std::atomic<int> sent{0};
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, holds = i % 2 == 0] {
      for (int n = 0; n < 200; ++n) {
        const int fd = holds ? Bound() : Udp();
        const long result = Send(fd);
        if (!holds) ++(result == 1 ? sent : refused);
        close(fd);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Print("sent", sent);
  Print("refused", refused);
}

void Disconnects() {
  const int fd = Bound();
  Outcome("send", Send(fd));
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  Outcome("disconnect", connect(fd, &none, sizeof(none)));
  Outcome("send", Send(fd));
  Outcome("send", Send(fd));
}

// To where the kernel connects nobody who has not asked for it.
void FailsToConnect() {
  const int fd = Bound();
  Outcome("send", Send(fd));
  sockaddr_in all{};
  all.sin_family = AF_INET;
  all.sin_port = htons(9);
  all.sin_addr.s_addr = INADDR_BROADCAST;
  Outcome("connect", connect(fd, reinterpret_cast<const sockaddr*>(&all), sizeof(all)));
  Outcome("send", Send(fd));
}

void Nonblocking() {
  Outcome("dontwait", Send(Udp(), port, MSG_DONTWAIT));
  Outcome("nonblock", Send(Udp(SOCK_NONBLOCK)));
}

void Timed() {
  const int fd = Udp();
  const timeval brief{0, 50'000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof(brief));
  Outcome("send", Send(fd));
}

void Signalled() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  Outcome("send", Send(Udp()));
}

void Receives() {
  const int fd = Bound();
  char text[8];
  Outcome("recv", recv(fd, text, sizeof(text), MSG_DONTWAIT));
  sockaddr_in mine{};
  socklen_t length = sizeof(mine);
  getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &length);
  Outcome("send", Send(fd, ntohs(mine.sin_port)));
  Print("read", read(fd, text, sizeof(text)));
}

void Pauses() {
  const int fd = Bound();
  Outcome("send", Send(fd));
  Pause();
  Outcome("send", Send(fd));
  Outcome("other", Send(fd, Other()));
  Outcome("new", Send(Udp()));
  Outcome("bind", Bind(Udp()));
}

// In a new program nothing is known of the descriptor.
void Inherits() {
  const int fd = Bound();
  dup2(fd, STDIN_FILENO);
  execl("/proc/self/exe", "probe", "held-inherited", std::to_string(port).c_str(), nullptr);
}

void Inherited() {
  Outcome("send", Send(STDIN_FILENO));
  Outcome("send", Send(STDIN_FILENO));
  Outcome("other", Send(STDIN_FILENO, Other()));
}

}  // namespace

std::map<std::string, std::function<void()>> HeldProbes() {
  return {
      {"held-bind", Binds},
      {"held-sends", BoundSends},
      {"held-unbound", FreeSends},
      {"held-ways", Ways},
      {"held-batch", Batch},
      {"held-numbers", Numbers},
      {"held-threads", Threads},
      {"held-disconnect", Disconnects},
      {"held-unconnected", FailsToConnect},
      {"held-nonblocking", Nonblocking},
      {"held-timed", Timed},
      {"held-signalled", Signalled},
      {"held-receives", Receives},
      {"held-pauses", Pauses},
      {"held-inherits", Inherits},
      {"held-inherited", Inherited},
  };
}

}  // namespace latchkey::testing
