#include "shim/testing/stress_model.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace latchkey::testing {
namespace {

constexpr unsigned kElsewhere = 900;  // no thread has so high a number

void Fail(int thread, const char* what, long result) {
  std::fprintf(stderr, "thread %d: %s: %ld, errno %d (%s)\n", thread, what, result, errno,
               std::strerror(errno));
  std::abort();
}

int Tcp(int flags = 0) {
  const int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  // It ends with a reset: no port waits for the clock.
  const linger at_once{1, 0};
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  return fd;
}

int ConnectTo(int fd, const sockaddr_in& address) {
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

bool Greets(int fd) {
  char text[8];
  return recv(fd, text, 5, MSG_WAITALL) == 5 && std::memcmp(text, "hello", 5) == 0;
}

int Status(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + status;
}

}  // namespace

int ConnectOnce(const StressWorld& world) {
  const int fd = Tcp(SOCK_CLOEXEC);
  if (fd < 0) return 1;
  if (ConnectTo(fd, world.bad) != -1 || errno != world.refusal) return 2;
  if (ConnectTo(fd, world.good) != 0) return 3;
  if (!Greets(fd)) return 4;
  return close(fd) == 0 ? 0 : 5;
}

void StressOwners::Take(int fd, int thread) {
  const int before = owners_[static_cast<size_t>(fd)].exchange(thread + 1);
  if (before != 0)
    Fail(thread, "was given another thread's descriptor, whose it is is", before - 1);
}

void StressOwners::Give(int fd, int thread) {
  const int before = owners_[static_cast<size_t>(fd)].exchange(0);
  if (before != thread + 1) Fail(thread, "has lost a descriptor to", before - 1);
}

StressThread::StressThread(StressWorld& world, StressOwners& owners, int number, uint32_t seed)
    : world_(world), owners_(owners), number_(number), random_(seed) {
  fds_.fill(-1);
}

void StressThread::Expect(bool good, const char* what, long result) const {
  if (!good) Fail(number_, what, result);
}

int StressThread::NewThing(Kind kind) {
  for (int i = 0; i < kDescriptors; ++i) {
    Thing& thing = things_[static_cast<size_t>(i)];
    if (thing.names != 0) continue;
    thing = Thing{kind, 0, false};
    return i;
  }
  std::abort();  // there are as many as descriptors
}

void StressThread::Put(int place, int fd, int thing) {
  owners_.Take(fd, number_);
  Fd(place) = fd;
  things_at_[static_cast<size_t>(place)] = thing;
  ++things_[static_cast<size_t>(thing)].names;
}

int StressThread::Room() {
  const int place = Pick();
  if (Fd(place) >= 0) Close(place);
  return place;
}

void StressThread::Open() {
  last = "open";
  const int place = Room();
  const bool file = Below(8) == 0;
  const int fd = file ? open("/dev/null", O_RDWR | O_CLOEXEC) : Tcp(Below(2) * SOCK_CLOEXEC);
  Expect(fd >= 0 && fd < static_cast<int>(kElsewhere), "open", fd);
  Put(place, fd, NewThing(file ? Kind::kFile : Kind::kFresh));
}

void StressThread::Connect() {
  last = "connect";
  const int place = Pick();
  if (Fd(place) < 0) return;
  Thing& thing = At(place);
  const int where = Below(4);  // 0, 1: good; 2: bad; 3: free
  const sockaddr_in& to = where == 2 ? world_.bad : where == 3 ? world_.free : world_.good;
  if (thing.kind == Kind::kFresh && where != 3) ++world_.asked;
  errno = 0;
  const int result = ConnectTo(Fd(place), to);
  switch (thing.kind) {
    case Kind::kFile:
      Expect(result < 0 && errno == ENOTSOCK, "connect of a file", result);
      break;
    case Kind::kConnected:
      Expect(result < 0 && errno == EISCONN, "connect again", result);
      break;
    default:
      if (where == 2) {
        Expect(result < 0 && errno == world_.refusal, "connect to the bad one", result);
        break;
      }
      Expect(result == 0 && errno == 0, where == 3 ? "connect freely" : "connect", result);
      thing.kind = Kind::kConnected;
      thing.greeted = false;
  }
}

void StressThread::Disconnect() {
  last = "disconnect";
  const int place = Pick();
  if (Fd(place) < 0 || At(place).kind != Kind::kConnected) return;
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  const int result = connect(Fd(place), &none, sizeof(none));
  Expect(result == 0, "disconnect", result);
  At(place).kind = Kind::kFresh;
}

void StressThread::Greet() {
  last = "greet";
  const int place = Pick();
  if (Fd(place) < 0 || At(place).kind != Kind::kConnected || At(place).greeted) return;
  Expect(Greets(Fd(place)), "not greeted", 0);
  At(place).greeted = true;
}

void StressThread::Duplicate() {
  last = "dup";
  const int from = Pick();
  const int place = Pick();
  if (Fd(from) < 0 || Fd(place) >= 0) return;
  const int fd = Below(2) == 0 ? dup(Fd(from)) : fcntl(Fd(from), F_DUPFD_CLOEXEC, 3);
  Expect(fd >= 0, "dup", fd);
  Put(place, fd, things_at_[static_cast<size_t>(from)]);
}

void StressThread::Replace() {
  last = "dup2";
  const int from = Pick();
  const int to = Pick();
  if (Fd(from) < 0 || Fd(to) < 0) return;
  const bool third = from != to && Below(2) == 0;
  const int result = third ? dup3(Fd(from), Fd(to), O_CLOEXEC) : dup2(Fd(from), Fd(to));
  Expect(result == Fd(to), "dup2", result);
  --At(to).names;
  things_at_[static_cast<size_t>(to)] = things_at_[static_cast<size_t>(from)];
  ++At(to).names;
}

// To itself, over a socket: it comes back under another number.
void StressThread::Pass() {
  last = "pass";
  const int place = Pick();
  if (Fd(place) < 0) return;
  int pair[2];
  Expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair", 0);
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
  std::memcpy(CMSG_DATA(header), &Fd(place), sizeof(int));
  Expect(sendmsg(pair[0], &message, 0) == 1, "sendmsg", 0);
  const int thing = things_at_[static_cast<size_t>(place)];
  ++things_[static_cast<size_t>(thing)].names;  // what is under way
  Close(place);
  Expect(recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) == 1, "recvmsg", 0);
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
  --things_[static_cast<size_t>(thing)].names;
  Put(place, fd, thing);
  Expect(close(pair[0]) == 0 && close(pair[1]) == 0, "close of a pair", 0);
}

void StressThread::Close(int place) {
  const int fd = Fd(place);
  owners_.Give(fd, number_);
  Fd(place) = -1;
  --At(place).names;
  long result = 0;
  switch (Below(5)) {
    case 0:
      result = syscall(SYS_close, fd);
      break;
    case 1:
      result = close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), 0);
      break;
    case 2: {
      FILE* const stream = fdopen(fd, "r");
      Expect(stream != nullptr, "fdopen", fd);
      result = std::fclose(stream);
      break;
    }
    default:
      result = close(fd);
  }
  Expect(result == 0, "close", result);
}

int StressThread::InChild(int connected) {
  // As children do that are about to become another program.
  if (close_range(kElsewhere, ~0U, 0) != 0) return 9;
  if (connected >= 0 && (ConnectTo(connected, world_.good) != -1 || errno != EISCONN)) return 10;
  return ConnectOnce(world_);
}

void StressThread::Fork() {
  last = "fork";
  const int place = Pick();
  const int connected = Fd(place) >= 0 && At(place).kind == Kind::kConnected ? Fd(place) : -1;
  const bool past_libc = Below(4) == 0;
  world_.asked += 2;
  const pid_t child = past_libc ? _Fork() : fork();
  if (child == 0) _exit(InChild(connected));
  Expect(child > 0, "fork", child);
  const int status = Status(child);
  Expect(status == 0, "a child's status", status);
}

void StressThread::Exec() {
  last = "exec";
  char* const nothing[] = {nullptr};
  world_.asked += 2;
  pid_t child = -1;
  const int way = Below(3);
  if (way == 0) {
    child = vfork();
    if (child == 0) {
      close_range(3, ~0U, 0);
      execve(world_.child[0], world_.child, nothing);
      _exit(126);
    }
  } else if (way == 1) {
    child = fork();
    if (child == 0) {
      execve(world_.child[0], world_.child, environ);
      _exit(126);
    }
  } else {
    const int error = posix_spawn(&child, world_.child[0], nullptr, nullptr, world_.child, nothing);
    Expect(error == 0, "posix_spawn", error);
  }
  Expect(child > 0, "vfork", child);
  const int status = Status(child);
  Expect(status == 0, "a program's status", status);
}

void StressThread::Step() {
  const int choice = Below(4000);
  if (choice < 1) {
    Exec();
  } else if (choice < 4) {
    Fork();
  } else if (choice < 1000) {
    Open();
  } else if (choice < 1800) {
    Connect();
  } else if (choice < 1900) {
    Disconnect();
  } else if (choice < 2200) {
    Greet();
  } else if (choice < 2700) {
    Duplicate();
  } else if (choice < 3300) {
    Replace();
  } else if (choice < 3400) {
    Pass();
  } else if (const int place = Pick(); Fd(place) >= 0) {
    last = "close";
    Close(place);
  }
  ++steps;
}

void StressThread::End() {
  for (int place = 0; place < kDescriptors; ++place) {
    if (Fd(place) >= 0) Close(place);
  }
}

}  // namespace latchkey::testing
