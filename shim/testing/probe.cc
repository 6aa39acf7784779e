// What runs under the shim in its tests: `probe NAME [PORT]` does one thing and prints what came
// of it, one word a line, errno as number. It knows nothing of Latchkey.
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "shim/testing/probe_calls.h"
#include "shim/testing/probe_datagrams.h"
#include "shim/testing/probe_exec.h"
#include "shim/testing/probe_handed.h"
#include "shim/testing/probe_held.h"
#include "shim/testing/probe_held_options.h"
#include "shim/testing/probe_latches.h"
#include "shim/testing/probe_loops.h"
#include "shim/testing/probe_moments.h"
#include "shim/testing/probe_odd.h"
#include "shim/testing/probe_options.h"
#include "shim/testing/probe_roads.h"
#include "shim/testing/probe_scarce.h"
#include "shim/testing/probe_tools.h"
#include "shim/testing/probe_wait.h"

using namespace latchkey::testing;  // NOLINT(google-build-using-namespace): its own helpers

namespace {

constexpr int kHighest = 1100;  // above any number the shim may use for itself

void ConnectOnce() {
  const int fd = Tcp();
  errno = 77;
  const int result = Connect(fd);
  if (result == 0) Print("errno", errno);
  Outcome("connect", result);
  if (result < 0) return;
  char text[8] = {};
  Print("read", read(fd, text, sizeof(text) - 1));
  errno = 0;
  const ssize_t end = read(fd, text, sizeof(text));
  Print("end", end < 0 ? -errno : end);
}

void ConnectBySyscall() {
  const sockaddr_in address = Loopback(port);
  Outcome("connect", syscall(SYS_connect, Tcp(), &address, sizeof(address)));
  Print("pid", syscall(SYS_getpid) == getpid());
  Outcome("preadv2", syscall(SYS_preadv2, -1, nullptr, 0, 0, 0, 0));
}

void ConnectTwice() {
  const int fd = Tcp();
  Outcome("first", Connect(fd));
  Outcome("second", Connect(fd));
}

void ConnectAway() { Outcome("connect", ConnectTo(Tcp(), Blackhole())); }

void BadPointers() {
  const int fd = Tcp();
  for (const uintptr_t bad : {uintptr_t{1}, uintptr_t{64}, UINTPTR_MAX - 3}) {
    Outcome("connect", connect(fd, reinterpret_cast<sockaddr*>(bad), sizeof(sockaddr_in)));
  }
  Outcome("null", connect(fd, nullptr, sizeof(sockaddr_in)));
  const sockaddr_in address = Loopback(port);
  Outcome("short", connect(fd, reinterpret_cast<const sockaddr*>(&address), 4));
  Outcome("no-socket",
          connect(STDIN_FILENO, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
  Outcome("closed", connect(-1, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
}

// Listens, has `clients` connect one after the other, each saying its number.
int Listen(int flags, uint16_t& at) {
  const int fd = Tcp(flags);
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  if (listen(fd, 8) < 0) return -1;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  at = ntohs(address.sin_port);
  return fd;
}

std::vector<int> Clients(int count, uint16_t at) {
  std::vector<int> clients;
  for (char i = 0; i < count; ++i) {
    clients.push_back(Tcp());
    Connect(clients.back(), at);
    send(clients.back(), &i, 1, MSG_NOSIGNAL);
  }
  return clients;
}

void Accept() {
  uint16_t at = 0;
  const int listener = Listen(0, at);
  Outcome("listen", listener);
  if (listener < 0) return;
  const std::vector<int> clients = Clients(3, at);
  sockaddr_in peer{};
  socklen_t length = sizeof(peer);
  errno = 77;
  const int child = accept(listener, reinterpret_cast<sockaddr*>(&peer), &length);
  Print("errno", errno);
  Outcome("accept", child);
  char number = -1;
  recv(child, &number, 1, 0);
  Print("number", number);
  sockaddr_in mine{};
  getsockname(clients[static_cast<size_t>(number)], reinterpret_cast<sockaddr*>(&mine), &length);
  Print("address", mine.sin_port == peer.sin_port && length == sizeof(peer));
}

void AcceptNonblocking() {
  uint16_t at = 0;
  const int listener = Listen(SOCK_NONBLOCK, at);
  const std::vector<int> clients = Clients(1, at);
  Outcome("accept", accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
}

void CloseLoop() {
  for (int fd = 3; fd < kHighest; ++fd) close(fd);
  Outcome("connect", Connect(Tcp()));
}

void CloseRange() {
  Outcome("close_range", close_range(3, ~0U, 0));
  Outcome("connect", Connect(Tcp()));
  // Of its own, of ours and of none.
  int refused = 0;
  for (unsigned fd = 3; fd < kHighest; ++fd) {
    if (close_range(fd, fd, 64) < 0 && errno == EINVAL) ++refused;
  }
  Print("no flags", refused == kHighest - 3);
  Outcome("unshare", close_range(3, ~0U, CLOSE_RANGE_UNSHARE));
  closefrom(3);
  Outcome("connect", Connect(Tcp()));
}

// Writes over every descriptor it did not open; what is written there must stay there.
void DupOver() {
  char name[] = "/tmp/latchkey-probe.XXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  std::vector<int> others;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    others.push_back(std::stoi(entry.path().filename()));
  }
  for (const int fd : others) {
    // The listing's own descriptor is closed by now.
    if (fd > file && fcntl(fd, F_GETFD) >= 0) Print("dup2", dup2(file, fd) == fd);
  }
  Outcome("connect", Connect(Tcp()));
  Print("octets", lseek(file, 0, SEEK_END));
  Print("same", dup2(file, file) == file);
}

void Fork() {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) _exit(Connect(Tcp()) == 0 ? 0 : errno);
  Outcome("parent", Connect(Tcp()));
  int status = 0;
  waitpid(child, &status, 0);
  Print("child", WEXITSTATUS(status));
  Outcome("again", Connect(Tcp()));
}

// As python's subprocess does: closes everything between vfork and exec.
void Vfork() {
  static char self[] = "/proc/self/exe";
  static char what[] = "connect";
  static char number[8];
  std::snprintf(number, sizeof(number), "%u", port);
  static char* arguments[] = {self, what, number, nullptr};
  std::fflush(stdout);
  const pid_t child = vfork();
  if (child == 0) {
    close_range(3, ~0U, 0);
    execv(self, arguments);
    _exit(126);
  }
  int status = 0;
  waitpid(child, &status, 0);
  Print("status", WEXITSTATUS(status));
  Outcome("parent", Connect(Tcp()));
}

void Threads() { Print("good", ConnectInThreads(16, 20)); }

void Count() {
  const int before = OpenCount();
  for (int i = 0; i < 50; ++i) {
    const int fd = Tcp();
    Connect(fd);
    close(fd);
  }
  Print("more", OpenCount() - before);
}

void Quiet() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char octet;
  Outcome("peek", recv(fd, &octet, 1, MSG_DONTWAIT | MSG_PEEK));
  Print("nothing", read(fd, &octet, 0));
}

// Every way to read, and SO_ERROR, after the connection ended.
void Ended() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char text[8];
  while (recv(fd, text, sizeof(text), 0) > 0) {
  }
  iovec part{text, sizeof(text)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Outcome("read", read(fd, text, sizeof(text)));
  Outcome("readv", readv(fd, &part, 1));
  Outcome("recv", recv(fd, text, sizeof(text), 0));
  Outcome("recvmsg", recvmsg(fd, &message, 0));
  Outcome("again", recv(fd, text, sizeof(text), MSG_DONTWAIT));
  int error = 0;
  socklen_t length = sizeof(error);
  Outcome("getsockopt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
  Print("error", error);
  Print("none", read(fd, text, 0));
}

void Options() {
  const int fd = Tcp();
  const int one = 1;
  Outcome("xfrm", setsockopt(fd, IPPROTO_IP, IP_XFRM_POLICY, &one, sizeof(one)));
  Outcome("xfrm6", setsockopt(fd, IPPROTO_IPV6, IPV6_XFRM_POLICY, &one, sizeof(one)));
  Outcome("ipsec", setsockopt(fd, IPPROTO_IP, IP_IPSEC_POLICY, &one, sizeof(one)));
  Outcome("ipsec6", setsockopt(fd, IPPROTO_IPV6, IPV6_IPSEC_POLICY, &one, sizeof(one)));
  Outcome("no-socket", setsockopt(STDIN_FILENO, IPPROTO_IP, IP_XFRM_POLICY, &one, sizeof(one)));
  Outcome("fastopen", setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &one, sizeof(one)));
  Outcome("keepalive", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)));
}

void Datagrams() {
  const sockaddr_in address = Loopback(port);
  const auto to = reinterpret_cast<const sockaddr*>(&address);
  Outcome("sendto", sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, to, sizeof(address)));
  Outcome("connect", connect(socket(AF_INET, SOCK_DGRAM, 0), to, sizeof(address)));
}

// The kernel sends an IPv4 datagram to an address of family AF_UNSPEC as if it said AF_INET.
void DatagramUnspecified() {
  sockaddr_in address = Loopback(port);
  address.sin_family = AF_UNSPEC;
  Outcome("sendto", sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0,
                           reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
}

void FastOpen() {
  constexpr int kFlags = MSG_FASTOPEN | MSG_NOSIGNAL;
  sockaddr_in address = Loopback(port);
  auto* const to = reinterpret_cast<sockaddr*>(&address);
  char octet = 'x';
  iovec part{&octet, 1};
  mmsghdr message{};
  message.msg_hdr.msg_name = to;
  message.msg_hdr.msg_namelen = sizeof(address);
  message.msg_hdr.msg_iov = &part;
  message.msg_hdr.msg_iovlen = 1;
  Outcome("sendto", sendto(Tcp(), "x", 1, kFlags, to, sizeof(address)));
  Outcome("sendmsg", sendmsg(Tcp(), &message.msg_hdr, kFlags));
  Outcome("sendmmsg", sendmmsg(Tcp(), &message, 1, kFlags));
  Outcome("syscall", syscall(SYS_sendto, Tcp(), "x", 1, kFlags, to, sizeof(address)));
}

void Disconnect() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  Outcome("disconnect", connect(fd, &none, sizeof(none)));
}

// Reads to the end on a second connection, made after the pause.
void WaitThenEnd() {
  Pause();
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char text[8];
  while (recv(fd, text, sizeof(text), 0) > 0) {
  }
  Outcome("end", recv(fd, text, sizeof(text), 0));
}

void WaitThenConnect() {
  Pause();
  Outcome("connect", Connect(Tcp()));
  Pause();
  Outcome("connect", Connect(Tcp()));
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::function<void()>> all = {
      {"connect", ConnectOnce},
      {"syscall", ConnectBySyscall},
      {"twice", ConnectTwice},
      {"blackhole", ConnectAway},
      {"pointers", BadPointers},
      {"accept", Accept},
      {"accept-nb", AcceptNonblocking},
      {"close-loop", CloseLoop},
      {"close-range", CloseRange},
      {"dup-over", DupOver},
      {"fork", Fork},
      {"vfork", Vfork},
      {"threads", Threads},
      {"count", Count},
      {"quiet", Quiet},
      {"ended", Ended},
      {"options", Options},
      {"latch", ProbeLatch},
      {"latch-short", ProbeLatchShort},
      {"latch-bad", ProbeLatchBad},
      {"latch-others", ProbeLatchOthers},
      {"request", ProbeRequest},
      {"request-bad", ProbeRequestBad},
      {"marked", ProbeMarked},
      {"datagrams", Datagrams},
      {"udp-sends", ProbeUdpSends},
      {"udp-again", ProbeUdpAgain},
      {"udp-many", ProbeUdpMany},
      {"udp-dup", [] { ProbeUdpCopied(ByDup); }},
      {"udp-fcntl", [] { ProbeUdpCopied(ByFcntl); }},
      {"udp-vfork", [] { ProbeUdpCopied(AfterVfork); }},
      {"udp-talks", ProbeUdpTalks},
      {"fast-open", FastOpen},
      {"disconnect", Disconnect},
      {"wait", WaitThenConnect},
      {"wait-end", WaitThenEnd},
      {"unspecified", DatagramUnspecified},
      {"sandbox", ProbeSandbox},
      {"nameless", ProbeNameless},
      {"parts", [] { ProbeParts(/*cork=*/false); }},
      {"parts-corked", [] { ProbeParts(/*cork=*/true); }},
      {"connect-fails", ProbeConnectFails},
      {"cancel", ProbeCancel},
      {"cancel-self", ProbeCancelSelf},
      {"cancel-accept", ProbeCancelAccept},
      {"cancel-connect", ProbeCancelConnect},
      {"nonblocking", ProbeNonblocking},
      {"larval", ProbeLarval},
      {"interrupted", ProbeInterrupted},
      {"interrupted-late", ProbeInterruptedLate},
      {"restarted", ProbeRestarted},
      {"send-timeout", ProbeSendTimeout},
      {"timeout-restarted", ProbeTimeoutRestarted},
      {"wait-together", ProbeWaitTogether},
      {"wait-fork", ProbeWaitFork},
      {"wait-dup", ProbeWaitDup},
  };
  all.merge(CallProbes());
  all.merge(ExecProbes());
  all.merge(HandedProbes());
  all.merge(HeldProbes());
  all.merge(HeldOptionProbes());
  all.merge(LatchProbes());
  all.merge(LoopProbes());
  all.merge(RoadProbes());
  all.merge(ScarceProbes());
  all.merge(MomentProbes());
  if (argc < 2 || !all.contains(argv[1])) return 2;
  if (argc > 2) port = static_cast<uint16_t>(std::atoi(argv[2]));
  all.at(argv[1])();
  return 0;
}
