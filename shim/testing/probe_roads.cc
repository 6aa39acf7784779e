#include "shim/testing/probe_roads.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim/testing/probe_tools.h"

// Exported by libc, in no header.
extern "C" {
int __connect(int fd, const sockaddr* address, socklen_t length);
int __close(int fd);
int __dup2(int from, int to);
}

namespace latchkey::testing {
namespace {

constexpr int kHighest = 1100;  // above any number the shim may use for itself

void OtherNames() {
  const sockaddr_in address = Loopback(port);
  Outcome("connect",
          __connect(Tcp(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
  for (int fd = 3; fd < kHighest; ++fd) __close(fd);
  Print("same", __dup2(0, 0));
  Outcome("connect", Connect(Tcp()));
}

void Mptcp() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
  int protocol = -1;
  socklen_t length = sizeof(protocol);
  getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
  Print("protocol", fd < 0 ? -errno : protocol);
  Outcome("connect", Connect(fd));
}

long PastUs(long number, long a, long b, long c) {
  long result = number;
  __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

// MPTCP's sockets, made in a way that no hook sees.
void MptcpPast() {
  for (const char* what : {"connect", "listen"}) {
    const long made = PastUs(SYS_socket, AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    Print("socket", made < 0 ? -made : 0);
    const int fd = static_cast<int>(made);
    Outcome(what, what[0] == 'c' ? Connect(fd) : listen(fd, 1));
  }
}

int Listen(uint16_t& at) {
  const int fd = Tcp();
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  if (listen(fd, 16) < 0) return -1;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  at = ntohs(address.sin_port);
  return fd;
}

// accept() with pointers as the manual has them and as it has not.
void AcceptOdd() {
  uint16_t at = 0;
  const int listener = Listen(at);
  auto* const bad = reinterpret_cast<socklen_t*>(uintptr_t{64});
  auto* const constant =
      static_cast<sockaddr*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  sockaddr_in peer{};
  auto* const name = reinterpret_cast<sockaddr*>(&peer);
  socklen_t fair = sizeof(peer);
  socklen_t negative = ~0U;
  socklen_t brief = 4;
  struct Call {
    const char* what;
    sockaddr* address;
    socklen_t* length;
  };
  const int before = OpenCount();
  for (const Call& call : {Call{"none", nullptr, nullptr}, Call{"no address", nullptr, bad},
                           Call{"no length", name, nullptr}, Call{"bad length", name, bad},
                           Call{"negative", name, &negative}, Call{"constant", constant, &fair},
                           Call{"brief", name, &brief}}) {
    const int client = Tcp();
    Connect(client, at);
    const int child = accept(listener, call.address, call.length);
    Outcome(call.what, child);
    if (child >= 0) close(child);
    close(client);
  }
  Print("length", static_cast<long>(brief));
  Print("port", peer.sin_port == 0);
  Print("family", peer.sin_family);
  Print("more", OpenCount() - before);
}

// Children that share the parent's memory ask, too.
void VforkConnect() {
  Connect(Tcp());
  const int before = OpenCount();
  for (int i = 0; i < 3; ++i) {
    const pid_t child = vfork();
    if (child == 0) _exit(Connect(Tcp()) == 0 ? 0 : errno);
    int status = 0;
    waitpid(child, &status, 0);
    Print("child", WEXITSTATUS(status));
  }
  const int last = Tcp();
  Outcome("connect", Connect(last));
  close(last);
  Print("more", OpenCount() - before);
}

// A child that libc's handlers know nothing of, made while a thread was at it.
void ForkPastLibc() {
  Connect(Tcp());
  std::fflush(stdout);
  const pid_t child = _Fork();
  if (child == 0) {
    int error = 0;
    for (int i = 0; i < 3; ++i) {
      const int fd = Tcp();
      if (Connect(fd) != 0) error = errno;
      close(fd);
    }
    _exit(error);
  }
  int status = 0;
  waitpid(child, &status, 0);
  Print("child", WEXITSTATUS(status));
  Outcome("connect", Connect(Tcp()));
}

// Each child of a child has one connection to the broker, its own.
void Generations() {
  std::fflush(stdout);
  const int first = OpenCount();
  for (int i = 0; i < 5; ++i) {
    const int fd = Tcp();
    if (Connect(fd) != 0) std::exit(3);
    close(fd);
    const pid_t child = fork();
    if (child == 0) continue;
    int status = 0;
    waitpid(child, &status, 0);
    std::exit(WEXITSTATUS(status));
  }
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  close(fd);
  Print("more", OpenCount() - first);
}

// Father and child have the same number, each in a PID namespace of its own.
void SameNumber() {
  std::fflush(stdout);
  for (int i = 0; i < 2; ++i) {
    if (unshare(i == 0 ? CLONE_NEWUSER | CLONE_NEWPID : CLONE_NEWPID) != 0) {
      std::perror("unshare");
      std::exit(4);
    }
    const pid_t child = fork();
    if (child > 0) {
      int status = 0;
      waitpid(child, &status, 0);
      std::exit(WEXITSTATUS(status));
    }
    Print("number", getpid());
    Outcome("connect", Connect(Tcp()));
    std::fflush(stdout);
  }
}

// As a daemon does: a child of its own locks itself up, and works there with several threads.
void LockedUp() {
  std::fflush(stdout);
  if (unshare(CLONE_NEWUSER) != 0) std::exit(4);
  const pid_t child = fork();
  if (child == 0) {
    Outcome("chroot", chroot("/dev"));
    Print("good", ConnectInThreads(4, 20));
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  Print("status", WEXITSTATUS(status));
}

// dup2() and dup3() that fail onto every descriptor there is.
void DupFails() {
  int failed = 0;
  int others = 0;
  for (int fd = 3; fd < kHighest; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    ++others;
    if (dup2(-1, fd) < 0 && errno == EBADF && dup3(-1, fd, O_CLOEXEC) < 0 && errno == EBADF) {
      ++failed;
    }
  }
  Print("all", failed == others && others > 0);
  const int before = OpenCount();
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  close(fd);
  Print("more", OpenCount() - before);
}

void Pass(int over, int fd) {
  char octet = 0;
  iovec part{&octet, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof(room);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  if (sendmsg(over, &message, 0) != 1) std::exit(3);
}

int Receive(int over) {
  char octet = 0;
  iovec part{&octet, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof(room);
  if (recvmsg(over, &message, 0) != 1 || CMSG_FIRSTHDR(&message) == nullptr) std::exit(3);
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
  return fd;
}

// Sockets go to another process and come from it: whoever connects them asks.
void Passed() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) std::exit(3);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    Outcome("received", Connect(Receive(pair[1])));
    std::fflush(stdout);
    Pass(pair[1], Tcp());
    Pass(pair[1], Tcp());
    _exit(0);
  }
  Pass(pair[0], Tcp());
  Outcome("came", Connect(Receive(pair[0])));
  Outcome("black", ConnectTo(Receive(pair[0]), Blackhole()));
  waitpid(child, nullptr, 0);
}

void Closed() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  FILE* const stream = fdopen(fd, "r+");
  Outcome("fclose", std::fclose(stream));
  Print("reused", Tcp() == fd);
  Outcome("connect", Connect(fd));
  Outcome("close", syscall(SYS_close, fd));
  Print("reused", Tcp() == fd);
  Outcome("connect", Connect(fd));
  Outcome("close_range", close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), 0));
  Outcome("close", close(fd));
}

void FastOpenConnect() {
  const int fd = Tcp();
  const int one = 1;
  Outcome("option", setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof(one)));
  Outcome("connect", Connect(fd));
}

// A listener that was there before the shim was: of a service manager, say.
void Inherited() {
  const int fd = Tcp();
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  PastUs(SYS_listen, fd, 8, 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  const int client = Tcp();
  PastUs(SYS_connect, client, reinterpret_cast<long>(&address), sizeof(address));
  fcntl(fd, F_SETFL, O_NONBLOCK);
  Outcome("accept", accept(fd, nullptr, nullptr));
}

}  // namespace

std::map<std::string, std::function<void()>> RoadProbes() {
  return {
      {"road-names", OtherNames},       {"road-mptcp", Mptcp},
      {"road-accept", AcceptOdd},       {"road-vfork", VforkConnect},
      {"road-fork", ForkPastLibc},      {"road-generations", Generations},
      {"road-same-number", SameNumber}, {"road-chroot", LockedUp},
      {"road-dup", DupFails},           {"road-passed", Passed},
      {"road-closed", Closed},          {"road-fast-open", FastOpenConnect},
      {"road-inherited", Inherited},    {"road-mptcp-past", MptcpPast},
  };
}

}  // namespace latchkey::testing
