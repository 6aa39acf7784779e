#include "shim/testing/probe_calls.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

constexpr int kHighest = 1100;  // above any number the shim may use for itself

// Has everything be closed by the next exec; it stays open meanwhile.
void MarkRange() {
  const int fd = Tcp();
  const int other = Tcp();
  const int before = OpenCount();
  const auto first = static_cast<unsigned>(fd);
  Outcome("close_range", close_range(first, ~0U, CLOSE_RANGE_CLOEXEC));
  Print("more", OpenCount() - before);
  Print("marked", fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(other, F_GETFD) == FD_CLOEXEC);
  Print("below", fcntl(STDIN_FILENO, F_GETFD));
  Outcome("connect", Connect(fd));
  Outcome("connect", Connect(other));
}

// What moves data between descriptors, once neither side of the connection says anything more.
void Moved() {
  signal(SIGPIPE, SIG_IGN);
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char text[8];
  while (recv(fd, text, sizeof(text), 0) > 0) {
  }
  shutdown(fd, SHUT_WR);
  const int file = memfd_create("file", 0);
  int ends[2];
  if (file < 0 || write(file, "octets", 6) != 6 || pipe(ends) != 0) std::exit(3);
  if (write(ends[1], "octets", 6) != 6) std::exit(3);
  off_t start = 0;
  Outcome("sendfile", sendfile(fd, file, &start, 6));
  off64_t start64 = 0;
  Outcome("sendfile64", sendfile64(fd, file, &start64, 6));
  Print("offsets", start + start64);
  Outcome("splice to", splice(ends[0], nullptr, fd, nullptr, 6, 0));
  Outcome("splice from", splice(fd, nullptr, ends[1], nullptr, 6, 0));
  Print("splice nothing", splice(fd, nullptr, ends[1], nullptr, 0, 0));
}

template <typename... Arguments>
long ByNumber(long number, Arguments... arguments) {
  return syscall(number, (long)arguments...);
}

sockaddr* Base(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }

int Option(int fd, int level, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  const long result = ByNumber(SYS_getsockopt, fd, level, option, &value, &length);
  return result == 0 && length == sizeof(value) ? value : -1;
}

// A listener whose every call goes by number.
int Listener(sockaddr_in& address) {
  const long made = ByNumber(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
  const int fd = static_cast<int>(made);
  Print("protocol", Option(fd, SOL_SOCKET, SO_PROTOCOL));
  Print("cloexec", fcntl(fd, F_GETFD) == FD_CLOEXEC);
  address = Loopback(0);
  Outcome("bind", ByNumber(SYS_bind, fd, &address, sizeof(address)));
  Outcome("listen", ByNumber(SYS_listen, fd, 5));
  tcp_info info{};
  socklen_t length = sizeof(info);
  getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
  Print("backlog", info.tcpi_sacked);  // a listener's, there
  length = sizeof(address);
  getsockname(fd, Base(address), &length);
  return fd;
}

// Two clients, of which the first is refused.
void AcceptByNumber(bool four) {
  sockaddr_in address{};
  const int listener = Listener(address);
  sockaddr_in mine{};
  socklen_t length = sizeof(mine);
  for (int i = 0; i < 2; ++i) {
    const int client = Tcp();
    Outcome("connect", ByNumber(SYS_connect, client, &address, sizeof(address)));
    getsockname(client, Base(mine), &length);
  }
  sockaddr_in peer{};
  length = sizeof(peer);
  const long child =
      four ? ByNumber(SYS_accept4, listener, &peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
           : ByNumber(SYS_accept, listener, &peer, &length);
  const int fd = static_cast<int>(child);
  Outcome("accept", child);
  Print("second", peer.sin_port == mine.sin_port && length == sizeof(peer));
  Print("cloexec", fcntl(fd, F_GETFD));
  Print("nonblocking", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  fcntl(listener, F_SETFL, O_NONBLOCK);
  Connect(Tcp(), ntohs(address.sin_port));
  pollfd there{listener, POLLIN, 0};
  poll(&there, 1, 10'000);
  Outcome("none", four ? ByNumber(SYS_accept4, listener, nullptr, nullptr, 0)
                       : ByNumber(SYS_accept, listener, nullptr, nullptr));
}

// Reads what the server says; writes into a file, which says how much.
void StreamByNumber() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char text[16] = {};
  char more[16] = {};
  const iovec parts[] = {{text, 2}, {more, 8}};
  Print("read", ByNumber(SYS_read, fd, text, 1));
  Print("first", text[0]);
  Print("readv", ByNumber(SYS_readv, fd, parts, 2));
  Print("split", text[0] == 'e' && text[1] == 'l' && more[0] == 'l' && more[1] == 'o');
  const int file = memfd_create("file", 0);
  Print("write", ByNumber(SYS_write, file, "12345", 3));
  Print("writev", ByNumber(SYS_writev, file, parts, 2));
  Print("octets", lseek(file, 0, SEEK_END));
}

// What each data call says of a connection that ended.
void EndedByNumber() {
  signal(SIGPIPE, SIG_IGN);
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char text[8] = {};
  while (recv(fd, text, sizeof(text), 0) > 0) {
  }
  shutdown(fd, SHUT_WR);
  const iovec part{text, sizeof(text)};
  mmsghdr message{};
  message.msg_hdr.msg_iov = const_cast<iovec*>(&part);
  message.msg_hdr.msg_iovlen = 1;
  constexpr int kQuiet = MSG_NOSIGNAL;
  Outcome("read", ByNumber(SYS_read, fd, text, sizeof(text)));
  Outcome("readv", ByNumber(SYS_readv, fd, &part, 1));
  Outcome("recvfrom", ByNumber(SYS_recvfrom, fd, text, sizeof(text), 0, nullptr, nullptr));
  Outcome("recvmsg", ByNumber(SYS_recvmsg, fd, &message.msg_hdr, 0));
  Outcome("recvmmsg", ByNumber(SYS_recvmmsg, fd, &message, 1, 0, nullptr));
  Outcome("write", ByNumber(SYS_write, fd, text, sizeof(text)));
  Outcome("writev", ByNumber(SYS_writev, fd, &part, 1));
  Outcome("sendto", ByNumber(SYS_sendto, fd, text, sizeof(text), kQuiet, nullptr, 0));
  Outcome("sendmsg", ByNumber(SYS_sendmsg, fd, &message.msg_hdr, kQuiet));
  Outcome("sendmmsg", ByNumber(SYS_sendmmsg, fd, &message, 1, kQuiet));
  Print("error", Option(fd, SOL_SOCKET, SO_ERROR));
  const int on = 1;
  Outcome("option", ByNumber(SYS_setsockopt, fd, IPPROTO_TCP, TCP_FASTOPEN, &on, sizeof(on)));
}

// Datagrams have every argument that there is.
void DatagramsByNumber() {
  const int to = socket(AF_INET, SOCK_DGRAM, 0);
  const int from = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in names[2] = {Loopback(0), Loopback(0)};
  socklen_t length = sizeof(names[0]);
  for (int i = 0; i < 2; ++i) {
    bind(i == 0 ? to : from, Base(names[i]), sizeof(names[i]));
    getsockname(i == 0 ? to : from, Base(names[i]), &length);
  }
  char text[4] = {};
  sockaddr_in peer{};
  Print("sendto", ByNumber(SYS_sendto, from, "12345", 5, 0, &names[0], sizeof(names[0])));
  Print("recvfrom", ByNumber(SYS_recvfrom, to, text, 3, MSG_TRUNC, &peer, &length));
  Print("three", text[2] == '3' && text[3] == 0);
  Print("from", peer.sin_port == names[1].sin_port && length == sizeof(peer));
  iovec part{text, 2};
  mmsghdr messages[3] = {};
  for (mmsghdr& message : messages) {
    message.msg_hdr.msg_name = &names[0];
    message.msg_hdr.msg_namelen = sizeof(names[0]);
    message.msg_hdr.msg_iov = &part;
    message.msg_hdr.msg_iovlen = 1;
  }
  Print("sendmsg", ByNumber(SYS_sendmsg, from, &messages[0].msg_hdr, 0));
  Print("sendmmsg", ByNumber(SYS_sendmmsg, from, messages, 3, 0));
  Outcome("oob", ByNumber(SYS_sendmmsg, from, messages, 3, MSG_OOB));
  for (mmsghdr& message : messages) message.msg_hdr.msg_name = nullptr;
  Print("recvmsg", ByNumber(SYS_recvmsg, to, &messages[0].msg_hdr, MSG_PEEK));
  timespec wait{0, -1};
  Outcome("bad time", ByNumber(SYS_recvmmsg, to, messages, 2, 0, &wait));
  wait = {10, 0};
  Print("recvmmsg", ByNumber(SYS_recvmmsg, to, messages, 2, 0, &wait));
  Print("recvmmsg", ByNumber(SYS_recvmmsg, to, messages, 3, MSG_WAITFORONE, nullptr));
}

// Over the connection to the broker, and around it.
void NumbersByNumber() {
  Outcome("connect", Connect(Tcp()));
  const int file = memfd_create("file", 0);
  int link = kHighest;
  while (fcntl(link, F_GETFD) < 0) --link;
  Outcome("bad dup2", ByNumber(SYS_dup2, -1, link));
  Outcome("bad dup3", ByNumber(SYS_dup3, -1, link, O_CLOEXEC));
  Outcome("close", ByNumber(SYS_close, link));
  Outcome("close_range", ByNumber(SYS_close_range, file + 1, ~0U, 0));
  Outcome("no range", ByNumber(SYS_close_range, ~0U, file + 1, 0));
  Outcome("no flags", ByNumber(SYS_close_range, link, link, 64L));
  Outcome("connect", Connect(Tcp()));
  Print("dup2", ByNumber(SYS_dup2, file, link) == link);
  Outcome("connect", Connect(Tcp()));
  int next = kHighest;
  while (fcntl(next, F_GETFD) < 0) --next;
  Print("other", next != link);
  Print("dup3", ByNumber(SYS_dup3, file, next, O_CLOEXEC) == next);
  Print("flags", fcntl(link, F_GETFD) == 0 && fcntl(next, F_GETFD) == FD_CLOEXEC);
  Outcome("connect", Connect(Tcp()));
  Print("octets", lseek(file, 0, SEEK_END));
  Print("same", ByNumber(SYS_dup2, file, file) == file);
  Outcome("same", ByNumber(SYS_dup3, file, file, 0));
}

}  // namespace

std::map<std::string, std::function<void()>> CallProbes() {
  return {
      {"call-mark-range", MarkRange},
      {"call-moved", Moved},
      {"number-accept", [] { AcceptByNumber(/*four=*/false); }},
      {"number-accept4", [] { AcceptByNumber(/*four=*/true); }},
      {"number-stream", StreamByNumber},
      {"number-ended", EndedByNumber},
      {"number-datagrams", DatagramsByNumber},
      {"number-numbers", NumbersByNumber},
  };
}

}  // namespace latchkey::testing
