#include "shim/link.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include <atomic>
#include <cerrno>

#include "shim/session.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

constexpr int kSlots = 8;
constexpr int64_t kPatienceMs = 10'000;
// How often to look for an answer before sleeping until it comes: it takes some tens of
// microseconds, and so does being woken on a CPU that went idle.
constexpr int kLooks = 100;
// Descriptors are kept where programs rarely count.
constexpr int kHighNumbers[] = {960, 700, 200, 100};

struct Slot {
  std::atomic<bool> busy;
  std::atomic<int> fd;  // 0: none (a connection never gets number 0)
  std::atomic<int> pid;
  uint64_t device = 0;
  uint64_t inode = 0;
};

struct Connection {
  int fd = -1;
  uint64_t device = 0;
  uint64_t inode = 0;
};

// constinit: an initializer at run time would come after Start() and wipe what that put here.
constinit Slot slots[kSlots];
sockaddr_un broker_address;
uint8_t session_token[wire::kTokenSize];
bool token_known;
std::atomic<uint32_t> next_serial;

int Pid() { return static_cast<int>(RawSyscall(SYS_getpid)); }

bool Identify(int fd, uint64_t& device, uint64_t& inode) {
  struct stat status {};
  if (RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) < 0) return false;
  device = status.st_dev;
  inode = status.st_ino;
  return true;
}

int64_t NowMs() {
  timespec now{};
  RawSyscall(SYS_clock_gettime, CLOCK_MONOTONIC, reinterpret_cast<long>(&now));
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

int Receive(int fd, wire::Type answer, uint32_t serial, wire::Received& received) {
  int64_t deadline = 0;
  for (int look = 0;; ++look) {
    const bool wait = look >= kLooks;
    const int error = wire::ReceiveMessage(fd, received, wait);
    if (error == EAGAIN && !wait) {
      // The broker may have been put on this very CPU.
      RawSyscall(SYS_sched_yield);
      continue;
    }
    if (error == EAGAIN) return ETIMEDOUT;  // SO_RCVTIMEO
    if (error == EINTR) {
      // The wait starts over, yet not for ever in a program with a busy timer.
      const int64_t now = NowMs();
      if (deadline == 0) deadline = now + kPatienceMs;
      if (now >= deadline) return ETIMEDOUT;
      continue;
    }
    if (error != 0) return error;
    if (received.header().type == answer && received.header().serial == serial) return 0;
    wire::CloseDescriptors(received);
    return EPROTO;
  }
}

int Exchange(int fd, const void* request, uint32_t size, const int* descriptors, int count,
             wire::Type answer, wire::Received& received) {
  const auto* header = static_cast<const wire::Header*>(request);
  if (const int error = wire::SendMessage(fd, request, size, descriptors, count, /*wait=*/true);
      error != 0) {
    return error == EAGAIN ? ETIMEDOUT : error;
  }
  return Receive(fd, answer, header->serial, received);
}

int Connect(Connection& connection) {
  long fd = RawSyscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return static_cast<int>(-fd);
  // A broker that hangs is a refusal, not a program that hangs: connecting, asking, waiting.
  const timeval patience{kPatienceMs / 1000, 0};
  for (const int option : {SO_SNDTIMEO, SO_RCVTIMEO}) {
    RawSyscall(SYS_setsockopt, fd, SOL_SOCKET, option, reinterpret_cast<long>(&patience),
               sizeof(patience));
  }
  const long result =
      RawSyscall(SYS_connect, fd, reinterpret_cast<long>(&broker_address), sizeof(broker_address));
  if (result < 0 && result != -EINTR) {
    RawSyscall(SYS_close, fd);
    return static_cast<int>(-result);
  }
  for (const int high : kHighNumbers) {
    const long moved = RawSyscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, high);
    if (moved < 0) continue;
    RawSyscall(SYS_close, fd);
    fd = moved;
    break;
  }
  connection.fd = static_cast<int>(fd);
  if (!Identify(connection.fd, connection.device, connection.inode)) return EBADF;
  return 0;
}

int AttachOn(int fd) {
  wire::Attach request{};
  request.header = wire::MakeHeader(wire::Type::kAttach, NextSerial());
  for (size_t i = 0; i < wire::kTokenSize; ++i) request.token[i] = session_token[i];
  wire::Received received;
  if (const int error =
          Exchange(fd, &request, sizeof(request), nullptr, 0, wire::Type::kAttached, received);
      error != 0) {
    return error;
  }
  const wire::Reason reason = received.As<wire::Attached>().reason;
  int error = reason == wire::Reason::kNone ? 0 : wire::ReasonErrno(reason);
  if (error == 0 && received.descriptor_count == 1) {
    error = MapPage(received.descriptors[0]);
  } else if (error == 0) {
    error = EPROTO;
  }
  wire::CloseDescriptors(received);
  return error;
}

// Takes a free slot; null when all are in use (many threads, or a signal handler on top of one).
Slot* Take() {
  for (Slot& slot : slots) {
    if (!slot.busy.exchange(true, std::memory_order_acquire)) return &slot;
  }
  return nullptr;
}

void GiveBack(Slot* slot) {
  if (slot != nullptr) slot->busy.store(false, std::memory_order_release);
}

// Returns the slot's connection if it is still what it was, in this process; else -1.
int Live(const Slot& slot) {
  const int fd = slot.fd.load(std::memory_order_relaxed);
  if (fd == 0 || slot.pid.load(std::memory_order_relaxed) != Pid()) return -1;
  uint64_t device = 0;
  uint64_t inode = 0;
  if (!Identify(fd, device, inode)) return -1;
  return device == slot.device && inode == slot.inode ? fd : -1;
}

void Drop(Slot* slot, int fd) {
  if (slot != nullptr) slot->fd.store(0, std::memory_order_relaxed);
  RawSyscall(SYS_close, fd);
}

}  // namespace

void SetBroker(const char* path) {
  broker_address.sun_family = AF_UNIX;
  size_t i = 0;
  for (; path[i] != '\0' && i + 1 < sizeof(broker_address.sun_path); ++i) {
    broker_address.sun_path[i] = path[i];
  }
  broker_address.sun_path[i] = '\0';
}

void SetToken(const uint8_t* token) {
  for (size_t i = 0; i < wire::kTokenSize; ++i) session_token[i] = token[i];
  token_known = true;
}

bool HasToken() { return token_known; }

int Ask(const void* request, uint32_t size, int descriptor, wire::Type answer,
        wire::Received& received) {
  if (!token_known) return ENOTCONN;
  Slot* slot = Take();
  int error = EPIPE;
  // A broker that was restarted left a dead connection: a fresh one is tried once.
  for (int attempt = 0; attempt < 2 && error != 0; ++attempt) {
    int fd = slot == nullptr ? -1 : Live(*slot);
    const bool fresh = fd < 0;
    if (fresh) {
      if (slot != nullptr) slot->fd.store(0, std::memory_order_relaxed);
      Connection connection;
      error = Connect(connection);
      if (error == 0) error = AttachOn(connection.fd);
      if (error != 0) {
        if (connection.fd >= 0) RawSyscall(SYS_close, connection.fd);
        break;
      }
      fd = connection.fd;
      if (slot != nullptr) {
        slot->device = connection.device;
        slot->inode = connection.inode;
        slot->pid.store(Pid(), std::memory_order_relaxed);
        slot->fd.store(fd, std::memory_order_relaxed);
      }
    }
    error = Exchange(fd, request, size, &descriptor, descriptor >= 0 ? 1 : 0, answer, received);
    if (error != 0 || slot == nullptr) Drop(slot, fd);
    if (error == ETIMEDOUT || error == EPROTO) break;
  }
  GiveBack(slot);
  return error;
}

int AskApart(const void* request, uint32_t size, const int* descriptors, int count,
             wire::Type answer, wire::Received& received) {
  Connection connection;
  if (const int error = Connect(connection); error != 0) return error;
  const int error = Exchange(connection.fd, request, size, descriptors, count, answer, received);
  RawSyscall(SYS_close, connection.fd);
  return error;
}

uint32_t NextSerial() { return next_serial.fetch_add(1, std::memory_order_relaxed) + 1; }

int Attach() {
  Slot* slot = Take();
  Connection connection;
  int error = Connect(connection);
  if (error == 0) error = AttachOn(connection.fd);
  if (error != 0 || slot == nullptr) {
    if (connection.fd >= 0) RawSyscall(SYS_close, connection.fd);
  } else {
    slot->device = connection.device;
    slot->inode = connection.inode;
    slot->pid.store(Pid(), std::memory_order_relaxed);
    slot->fd.store(connection.fd, std::memory_order_relaxed);
  }
  GiveBack(slot);
  return error;
}

bool IsLink(int fd) {
  if (fd <= 0) return false;
  for (const Slot& slot : slots) {
    if (slot.fd.load(std::memory_order_relaxed) == fd) return Live(slot) == fd;
  }
  return false;
}

void ForgetLink(int fd) {
  for (Slot& slot : slots) {
    if (fd > 0 && slot.fd.load(std::memory_order_relaxed) == fd &&
        slot.pid.load(std::memory_order_relaxed) == Pid()) {
      slot.fd.store(0, std::memory_order_relaxed);
    }
  }
}

int LinksInOrder(int* fds, int room) {
  int count = 0;
  for (const Slot& slot : slots) {
    const int fd = slot.fd.load(std::memory_order_relaxed);
    if (fd == 0 || count == room || Live(slot) != fd) continue;
    int place = count++;
    for (; place > 0 && fds[place - 1] > fd; --place) fds[place] = fds[place - 1];
    fds[place] = fd;
  }
  return count;
}

}  // namespace latchkey::shim
