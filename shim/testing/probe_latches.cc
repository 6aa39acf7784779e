#include "shim/testing/probe_latches.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "shim/latchkey.h"
#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

constexpr uint32_t kTag = 0x10000;

int Udp() { return socket(AF_INET, SOCK_DGRAM, 0); }

// A UDP socket on loopback; `name` becomes its address.
int Bound(sockaddr_in& name) {
  const int fd = Udp();
  name = Loopback(0);
  socklen_t length = sizeof(name);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&name), length) != 0) return -1;
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length);
  return fd;
}

int Set(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof(value));
}

int Get(int fd, int level, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  return getsockopt(fd, level, option, &value, &length) == 0 ? value : -errno;
}

// A message of one octet with room for control data.
struct Message {
  alignas(cmsghdr) char control[256] = {};
  char octet = '-';
  iovec part{&octet, 1};
  sockaddr_in name{};
  mmsghdr both{};

  explicit Message(size_t room = sizeof(control)) {
    msghdr& message = both.msg_hdr;
    message.msg_name = &name;
    message.msg_namelen = sizeof(name);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = room;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  msghdr* get() { return &both.msg_hdr; }

  void Told(const char* what) {
    std::printf("%s %c", what, octet);
    for (cmsghdr* each = CMSG_FIRSTHDR(get()); each != nullptr; each = CMSG_NXTHDR(get(), each)) {
      uint64_t latch = 0;
      if (each->cmsg_level == SOL_LATCHKEY && each->cmsg_type == LATCHKEY_LATCH) {
        std::memcpy(&latch, CMSG_DATA(each), sizeof(latch));
        std::printf(" latch %llu", static_cast<unsigned long long>(latch));
      } else {
        std::printf(" %d/%d", each->cmsg_level, each->cmsg_type);
      }
    }
    std::printf(get()->msg_flags & MSG_CTRUNC ? " cut\n" : "\n");
  }
  void Under(const sockaddr_in* to, uint64_t latch) {
    if (to != nullptr) name = *to;
    if (to == nullptr) get()->msg_name = nullptr;
    get()->msg_namelen = to != nullptr ? sizeof(name) : 0;
    cmsghdr* header = CMSG_FIRSTHDR(get());
    header->cmsg_level = SOL_LATCHKEY;
    header->cmsg_type = LATCHKEY_LATCH;
    header->cmsg_len = CMSG_LEN(sizeof(latch));
    std::memcpy(CMSG_DATA(header), &latch, sizeof(latch));
    get()->msg_controllen = CMSG_SPACE(sizeof(latch));
  }
};

// Sends `octet` and `more` with this mark, in segments of a size unless that is 0.
void Put(const sockaddr_in& to, char octet, uint32_t mark, const char* more = "", int size = 0) {
  const int fd = Udp();
  const std::string text = octet + std::string(more);
  if (size != 0 && Set(fd, IPPROTO_UDP, UDP_SEGMENT, size) != 0) Outcome("segment", -1);
  if (mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) {
    Outcome("mark", -1);
  }
  sendto(fd, text.data(), text.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  close(fd);
}

// How many datagrams are there.
int Came(int fd) {
  int came = 0;
  char octet = 0;
  while (recv(fd, &octet, 1, MSG_DONTWAIT) == 1) ++came;
  return came;
}

void Receives() {
  sockaddr_in name{};
  const int fd = Bound(name);
  Print("before", Get(fd, SOL_LATCHKEY, LATCHKEY_LATCHES));
  errno = 77;
  const int set = Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 1);
  if (set == 0) Print("errno", errno);
  Outcome("set", set);
  Print("after", Get(fd, SOL_LATCHKEY, LATCHKEY_LATCHES));
  Print("marks", Get(fd, SOL_SOCKET, SO_RCVMARK));
  Put(name, 'a', kTag | 5);
  Put(name, 'b', 0);
  Put(name, 'c', 2 * kTag);
  Put(name, 'd', kTag);
  for (int i = 0; i < 2; ++i) {
    Message message;
    recvmsg(fd, message.get(), 0);
    message.Told("recvmsg");
  }
  Message many[2];
  mmsghdr batch[2] = {many[0].both, many[1].both};
  Print("recvmmsg", recvmmsg(fd, batch, 2, 0, nullptr));
  for (int i = 0; i < 2; ++i) {
    many[i].both = batch[i];
    many[i].Told("of them");
  }
  // Too little room, none, and another call.
  for (const size_t room : {size_t{20}, size_t{0}}) {
    Put(name, 'e', kTag);
    Message message(room);
    recvmsg(fd, message.get(), 0);
    message.Told("little");
  }
  Put(name, 'f', kTag);
  Message message;
  syscall(SYS_recvmsg, fd, message.get(), 0);
  message.Told("syscall");
  // By another number of it, and by a child.
  Put(name, 'g', kTag);
  Message other;
  recvmsg(dup(fd), other.get(), 0);
  other.Told("dup");
  // Its own wish for marks.
  Outcome("own", Set(fd, SOL_SOCKET, SO_RCVMARK, 1));
  Print("marks", Get(fd, SOL_SOCKET, SO_RCVMARK));
  Put(name, 'h', kTag);
  Message own;
  recvmsg(fd, own.get(), 0);
  own.Told("own");
  Outcome("none", Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 0));
  Put(name, 'i', kTag);
  Message left;
  recvmsg(fd, left.get(), 0);
  left.Told("left");
}

// What else comes with datagrams, and other ways to have them.
void Beside() {
  sockaddr_in name{};
  const int fd = Bound(name);
  Outcome("set", Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 1));
  Set(fd, IPPROTO_IP, IP_PKTINFO, 1);
  Set(fd, SOL_SOCKET, SO_TIMESTAMP, 1);
  Put(name, 'a', kTag);
  for (const int flags : {int{MSG_PEEK}, 0}) {
    Message message;
    recvmsg(fd, message.get(), flags);
    message.Told("all");
  }
  Set(fd, IPPROTO_IP, IP_PKTINFO, 0);
  Set(fd, SOL_SOCKET, SO_TIMESTAMP, 0);
  Put(name, 'b', kTag, "ye");
  Message brief;
  recvmsg(fd, brief.get(), 0);
  brief.Told("brief");
  Print("truncated", (brief.get()->msg_flags & MSG_TRUNC) != 0);
  Put(name, 'c', kTag);
  Message many[4];
  mmsghdr batch[4] = {many[0].both, many[1].both, many[2].both, many[3].both};
  Print("recvmmsg", recvmmsg(fd, batch, 4, MSG_WAITFORONE, nullptr));
  many[0].both = batch[0];
  many[0].Told("first");
  Set(fd, IPPROTO_UDP, UDP_GRO, 1);
  Put(name, 'd', kTag, "ots", 2);
  Message segments;
  recvmsg(fd, segments.get(), 0);
  segments.Told("segments");
  // Nobody is there.
  sockaddr_in gone{};
  close(Bound(gone));
  Set(fd, IPPROTO_IP, IP_RECVERR, 1);
  Outcome("send", sendto(fd, "x", 1, 0, reinterpret_cast<const sockaddr*>(&gone), sizeof(gone)));
  pollfd watched{fd, 0, 0};
  Print("poll", poll(&watched, 1, 10'000));
  Message error;
  recvmsg(fd, error.get(), MSG_ERRQUEUE);
  error.Told("error");
}

// A socket whose program asked for marks alone, in a session where another asked for latches.
void Others() {
  sockaddr_in name{};
  const int fd = Bound(name);
  Set(Udp(), SOL_LATCHKEY, LATCHKEY_LATCHES, 1);
  Set(fd, SOL_SOCKET, SO_RCVMARK, 1);
  Put(name, 'a', kTag);
  Message message;
  recvmsg(fd, message.get(), 0);
  message.Told("marks");
  Message under;
  under.Under(&name, 7);
  Outcome("send", sendmsg(fd, under.get(), 0));
  // What is no UDP socket, and what is no flag.
  Outcome("tcp", Set(Tcp(), SOL_LATCHKEY, LATCHKEY_LATCHES, 1));
  Outcome("two", Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 2));
  Outcome("null", setsockopt(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, nullptr, 4));
  Outcome("short", setsockopt(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, "1", 1));
  Outcome("pointer", sendmsg(fd, nullptr, 0));
  msghdr bad = *under.get();
  bad.msg_control = reinterpret_cast<void*>(64);
  Outcome("control", sendmsg(fd, &bad, 0));
}

// Where no program of the session asked for anything.
void Unasked() {
  sockaddr_in name{};
  const int to = Bound(name);
  const int fd = Udp();
  Message under;
  under.Under(&name, 7);
  Outcome("send", sendmsg(fd, under.get(), 0));
  Message two[2];
  two[0].Under(&name, 7);
  two[0].get()->msg_controllen = 0;
  two[1].Under(&name, 7);
  mmsghdr batch[2] = {two[0].both, two[1].both};
  Print("sendmmsg", sendmmsg(fd, batch, 2, 0));
  Outcome("rest", sendmmsg(fd, batch + 1, 1, 0));
  cmsghdr* const header = CMSG_FIRSTHDR(under.get());
  header->cmsg_level = IPPROTO_IP;
  header->cmsg_type = IP_TTL;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int hops = 9;
  std::memcpy(CMSG_DATA(header), &hops, sizeof(hops));
  Outcome("other", sendmsg(fd, under.get(), 0));
  Print("came", Came(to));
}

// More than come at once as a rule, with marks of the program's own.
void Many() {
  constexpr unsigned kCount = 300;
  sockaddr_in name{};
  const int fd = Bound(name);
  Outcome("room", Set(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20));
  Outcome("set", Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 1));
  Outcome("own", Set(fd, SOL_SOCKET, SO_RCVMARK, 1));
  for (unsigned i = 1; i <= kCount; ++i) Put(name, i == kCount ? 'z' : 'a', kTag);
  std::vector<Message> many(kCount);
  std::vector<mmsghdr> batch;
  for (const Message& each : many) batch.push_back(each.both);
  Print("recvmmsg", recvmmsg(fd, batch.data(), kCount, MSG_DONTWAIT, nullptr));
  many.back().both = batch.back();
  many.back().Told("last");
}

void Sends() {
  sockaddr_in name{};
  const int to = Bound(name);
  const int fd = Udp();
  Outcome("set", Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 1));
  sockaddr_in elsewhere = name;
  elsewhere.sin_addr.s_addr = htonl(0x7f000002);
  for (const uint64_t latch : {7, 8, 9, 10}) {
    Message message;
    message.Under(&name, latch);
    errno = 77;
    const long sent = sendmsg(fd, message.get(), 0);
    if (sent == 1) Print("errno", errno);
    Outcome("send", sent);
  }
  Message wrong;
  wrong.Under(&elsewhere, 7);
  Outcome("elsewhere", sendmsg(fd, wrong.get(), 0));
  Message nowhere;
  nowhere.Under(nullptr, 7);
  Outcome("nowhere", sendmsg(fd, nowhere.get(), 0));
  wrong.Under(&name, 7);
  CMSG_FIRSTHDR(wrong.get())->cmsg_len -= 4;
  Outcome("short", sendmsg(fd, wrong.get(), 0));
  // Of three, the last one under a broken one; then that one first.
  Message three[3];
  three[0].Under(&name, 7);
  three[1].Under(&name, 7);
  three[1].get()->msg_controllen = 0;
  three[2].Under(&name, 8);
  mmsghdr batch[3] = {three[0].both, three[1].both, three[2].both};
  Print("sendmmsg", sendmmsg(fd, batch, 3, 0));
  Print("length", batch[0].msg_len);
  Outcome("rest", sendmmsg(fd, batch + 2, 1, 0));
  Print("came", Came(to));
}

void Connected() {
  sockaddr_in name{};
  const int to = Bound(name);
  sockaddr_in own{};
  const int fd = Bound(own);
  connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
  Outcome("set", Set(fd, SOL_LATCHKEY, LATCHKEY_LATCHES, 1));
  Message message;
  message.Under(nullptr, 7);
  Outcome("send", sendmsg(fd, message.get(), 0));
  Message broken;
  broken.Under(nullptr, 8);
  Outcome("broken", sendmsg(fd, broken.get(), 0));
  sendto(to, "x", 1, 0, reinterpret_cast<const sockaddr*>(&own), sizeof(own));
  Message back;
  recvmsg(fd, back.get(), 0);
  back.Told("back");
}

// The options that all sockets have, of one that has many peers.
void Asks() {
  const int fd = Udp();
  Print("state", Get(fd, SOL_LATCHKEY, LATCHKEY_STATE));
  latchkey_info info{};
  info.id = 7;
  socklen_t length = sizeof(info);
  Outcome("peer info", getsockopt(fd, SOL_LATCHKEY, LATCHKEY_PEER_INFO, &info, &length));
  std::printf("%u: %s\n", length, info.peer_id);
  length = 15;
  Outcome("short", getsockopt(fd, SOL_LATCHKEY, LATCHKEY_PEER_INFO, &info, &length));
  length = sizeof(info);
  Outcome("tcp", getsockopt(Tcp(), SOL_LATCHKEY, LATCHKEY_PEER_INFO, &info, &length));
  Outcome("null", getsockopt(fd, SOL_LATCHKEY, LATCHKEY_PEER_INFO, nullptr, &length));
  Outcome("policy", setsockopt(fd, IPPROTO_IP, 17, &info, 232));
  Outcome("request", setsockopt(fd, SOL_LATCHKEY, LATCHKEY_REQUEST, "x", 1));
  sockaddr_in name{};
  Outcome("bound", setsockopt(Bound(name), SOL_LATCHKEY, LATCHKEY_REQUEST, "x", 1));
}

}  // namespace

std::map<std::string, std::function<void()>> LatchProbes() {
  return {{"latches-received", Receives},   {"latches-beside", Beside},
          {"latches-others", Others},       {"latches-many", Many},
          {"latches-sent", Sends},          {"latches-unasked", Unasked},
          {"latches-connected", Connected}, {"latches-asked", Asks}};
}

}  // namespace latchkey::testing
