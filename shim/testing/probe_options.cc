#include "shim/testing/probe_options.h"

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "shim/latchkey.h"
#include "shim/testing/probe_tools.h"

namespace latchkey::testing {
namespace {

using Get = int (*)(int, int, void*, socklen_t*);

int ByName(int fd, int option, void* value, socklen_t* length) {
  return getsockopt(fd, SOL_LATCHKEY, option, value, length);
}

int ByNumber(int fd, int option, void* value, socklen_t* length) {
  return static_cast<int>(syscall(SYS_getsockopt, fd, SOL_LATCHKEY, option, value, length));
}

void Text(const char* what, int fd, int option, Get get) {
  char text[LATCHKEY_ID_MAX];
  socklen_t length = sizeof(text);
  if (get(fd, option, text, &length) < 0) {
    Print(what, -errno);
  } else {
    std::printf("%s %.*s\n", what, static_cast<int>(length), text);
  }
}

void Number(const char* what, int fd, int option, Get get) {
  int number = -1;
  socklen_t length = sizeof(number);
  if (get(fd, option, &number, &length) < 0) number = -errno;
  Print(what, number);
}

int Ask(const std::string& wish, int fd) {
  return setsockopt(fd, SOL_LATCHKEY, LATCHKEY_REQUEST, wish.data(),
                    static_cast<socklen_t>(wish.size()));
}

}  // namespace

void ProbeLatch() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  for (const Get get : {ByName, ByNumber}) {
    errno = 77;
    Number("state", fd, LATCHKEY_STATE, get);
    Number("disposition", fd, LATCHKEY_DISPOSITION, get);
    Text("peer", fd, LATCHKEY_PEER_ID, get);
    Text("local", fd, LATCHKEY_LOCAL_ID, get);
    Text("binding", fd, LATCHKEY_CHANNEL_BINDING, get);
    latchkey_info info{};
    socklen_t length = sizeof(info);
    Outcome("info", get(fd, LATCHKEY_INFO, &info, &length));
    std::printf("%u of %u: %s\n", length, info.size, info.peer_id);
  }
}

void ProbeLatchShort() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  char room[64];
  for (const int option : {LATCHKEY_STATE, LATCHKEY_PEER_ID, LATCHKEY_INFO, LATCHKEY_DISPOSITION,
                           LATCHKEY_CHANNEL_BINDING}) {
    for (const socklen_t size : {0U, 3U, 8U}) {
      std::memset(room, '#', sizeof(room));
      socklen_t length = size;
      const int result = ByName(fd, option, room, &length);
      const char* what = std::memchr(room + size, '#', 1) == nullptr ? "overrun" : "in bounds";
      std::printf("%d %u: %d %u %s\n", option, size, result < 0 ? errno : 0, length, what);
    }
  }
}

void ProbeLatchBad() {
  const int fd = Tcp();
  Outcome("connect", Connect(fd));
  auto* nowhere = reinterpret_cast<void*>(64);
  void* fixed = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char room[64];
  for (const int option : {LATCHKEY_STATE, LATCHKEY_PEER_ID, LATCHKEY_INFO}) {
    socklen_t length = sizeof(room);
    Outcome("value", ByName(fd, option, nowhere, &length));
    Outcome("read-only", ByName(fd, option, fixed, &length));
    Outcome("null", ByName(fd, option, nullptr, &length));
    Outcome("length", ByName(fd, option, room, static_cast<socklen_t*>(nowhere)));
    Outcome("read-only length", ByName(fd, option, room, static_cast<socklen_t*>(fixed)));
    length = static_cast<socklen_t>(-1);
    Outcome("negative", ByName(fd, option, room, &length));
  }
  socklen_t length = sizeof(room);
  for (const int option : {0, LATCHKEY_REQUEST, 8, -1}) {
    Outcome("option", ByName(fd, option, room, &length));
  }
  for (const int option : {0, LATCHKEY_STATE, LATCHKEY_DISPOSITION, 8}) {
    Outcome("set", setsockopt(fd, SOL_LATCHKEY, option, room, sizeof(int)));
  }
}

void ProbeLatchOthers() {
  const int others[] = {socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE),
                        socket(AF_UNIX, SOCK_STREAM, 0), STDIN_FILENO, -1};
  for (const int fd : others) {
    Number("get", fd, LATCHKEY_STATE, ByName);
    Outcome("set", Ask("x", fd));
  }
}

void ProbeRequest() {
  const int fd = Tcp();
  errno = 77;
  const int result = Ask("[[rule]]\naction = \"protect\"\n", fd);
  if (result == 0) Print("errno", errno);
  Outcome("request", result);
  Outcome("connect", Connect(fd));
  Outcome("late", Ask("[[rule]]\n", fd));
  const char text[] = "by number";
  Outcome("syscall", syscall(SYS_setsockopt, Tcp(), SOL_LATCHKEY, LATCHKEY_REQUEST, text,
                             sizeof(text)));  // with its NUL
}

void ProbeRequestBad() {
  const int fd = Tcp();
  Outcome("empty", Ask("", fd));
  Outcome("long", Ask(std::string(LATCHKEY_REQUEST_MAX + 1, ' '), fd));
  Outcome("nul", Ask(std::string("a\0b", 3), fd));
  Outcome("pointer",
          setsockopt(fd, SOL_LATCHKEY, LATCHKEY_REQUEST, reinterpret_cast<void*>(64), 8));
  Outcome("negative",
          setsockopt(fd, SOL_LATCHKEY, LATCHKEY_REQUEST, "x", static_cast<socklen_t>(-1)));
  Outcome("longest", Ask(std::string(LATCHKEY_REQUEST_MAX, ' '), fd));
}

void ProbeMarked() {
  for (const bool listens : {false, true}) {
    const int fd = Tcp();
    const int mark = static_cast<int>(0x80000000);
    Outcome("mark", setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)));
    Outcome(listens ? "listen" : "connect", listens ? listen(fd, 1) : Connect(fd));
  }
}

}  // namespace latchkey::testing
