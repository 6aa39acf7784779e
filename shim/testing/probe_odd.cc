#include "shim/testing/probe_odd.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

// Filters every system call from now on.
bool Filter(sock_filter* code, uint16_t size) {
  const sock_fprog program{size, code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Has the kernel answer one system call with an error from now on.
bool Deny(uint32_t call, uint32_t error) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  return Filter(code, sizeof(code) / sizeof(code[0]));
}

// Has the kernel answer what accepts by name as sockets without names do (AF_ALG), from now on.
bool DenyNames() {
  constexpr uint32_t kName = offsetof(seccomp_data, args[1]);
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_accept, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_accept4, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kName),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kName + sizeof(uint32_t)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ECONNABORTED),
  };
  return Filter(code, sizeof(code) / sizeof(code[0]));
}

}  // namespace

void ProbeNameless() {
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  // The kernel picks an abstract name.
  sockaddr_un name{AF_UNIX, {}};
  auto* const address = reinterpret_cast<sockaddr*>(&name);
  socklen_t length = sizeof(sa_family_t);
  bind(listener, address, length);
  listen(listener, 4);
  length = sizeof(name);
  getsockname(listener, address, &length);
  for (int i = 0; i < 3; ++i) connect(socket(AF_UNIX, SOCK_STREAM, 0), address, length);
  if (!DenyNames()) std::exit(3);
  Outcome("accept", accept(listener, nullptr, nullptr));
  Outcome("accept4", accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  length = sizeof(name);
  Outcome("named", accept(listener, address, &length));
}

void ProbeSandbox() {
  if (!Deny(SYS_getsockopt, EPERM)) std::exit(3);
  const sockaddr_in address = Loopback(port);
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  const int tcp = socket(AF_INET, SOCK_STREAM, 0);
  Outcome("connect", connect(tcp, to, sizeof(address)));
  Outcome("fast-open", sendto(tcp, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, to, sizeof(address)));
  Outcome("listen", listen(tcp, 1));
  Outcome("udp", connect(socket(AF_INET, SOCK_DGRAM, 0), to, sizeof(address)));
  const sockaddr_un nobody{AF_UNIX, "/nonexistent"};
  Outcome("unix", connect(socket(AF_UNIX, SOCK_STREAM, 0),
                          reinterpret_cast<const sockaddr*>(&nobody), sizeof(nobody)));
}

void ProbeParts(bool cork) {
  const sockaddr_in any = Loopback(0);
  const sockaddr_in address = Loopback(port);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any));
  const auto send = [&](const char* what, int flags) {
    Outcome(what, sendto(fd, "x", 1, flags, reinterpret_cast<const sockaddr*>(&address),
                         sizeof(address)));
  };
  const int one = 1;
  if (cork) Outcome("cork", setsockopt(fd, IPPROTO_UDP, UDP_CORK, &one, sizeof(one)));
  send("part", cork ? 0 : MSG_MORE);
  if (!Deny(SYS_sendto, EPERM)) std::exit(3);
  send("rest", 0);
  send("other", 0);
}

void ProbeConnectFails() {
  sockaddr_in nowhere = Loopback(port);
  nowhere.sin_addr.s_addr = htonl(INADDR_BROADCAST);
  Outcome("connect", connect(Tcp(SOCK_NONBLOCK), reinterpret_cast<const sockaddr*>(&nowhere),
                             sizeof(nowhere)));
  if (!Deny(SYS_connect, EAGAIN)) std::exit(3);
  Outcome("connect", Connect(Tcp(SOCK_NONBLOCK)));
}

void ProbeCancel() {
  static int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Loopback(port);
  Outcome("connect", connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
  pthread_t thread{};
  const auto receive = [](void*) -> void* {
    char text[8];
    while (recv(fd, text, sizeof(text), 0) > 0) {
    }
    return nullptr;
  };
  if (pthread_create(&thread, nullptr, receive, nullptr) != 0) std::exit(3);
  usleep(50'000);  // into recv(), as a rule: it must end whether or not
  void* ended_with = nullptr;
  Outcome("cancel", -pthread_cancel(thread));
  Outcome("join", -pthread_join(thread, &ended_with));
  std::printf("cancelled %d\n", ended_with == PTHREAD_CANCELED ? 1 : 0);
}

void ProbeCancelAccept() {
  static int listener = Tcp();
  sockaddr_in name = Loopback(0);
  socklen_t length = sizeof(name);
  auto* const address = reinterpret_cast<sockaddr*>(&name);
  bind(listener, address, length);
  Outcome("listen", listen(listener, 4));
  getsockname(listener, address, &length);
  const int before = OpenCount();
  pthread_t thread{};
  const auto take = [](void*) -> void* {
    accept(listener, nullptr, nullptr);
    return nullptr;
  };
  if (pthread_create(&thread, nullptr, take, nullptr) != 0) std::exit(3);
  usleep(50'000);  // into accept(), as a rule: it must end whether or not
  void* ended_with = nullptr;
  Outcome("cancel", -pthread_cancel(thread));
  Outcome("join", -pthread_join(thread, &ended_with));
  std::printf("cancelled %d\n", ended_with == PTHREAD_CANCELED ? 1 : 0);
  const int client = Tcp();
  Outcome("connect", ConnectTo(client, name));
  const int child = accept(listener, nullptr, nullptr);
  Outcome("accept", child);
  close(client);
  close(child);
  Print("more", OpenCount() - before);
}

void ProbeCancelSelf() {
  pthread_cancel(pthread_self());
  char text[8];
  (void)!read(STDIN_FILENO, text, 0);  // does not come back
  std::printf("not cancelled\n");
}

}  // namespace latchkey::testing
