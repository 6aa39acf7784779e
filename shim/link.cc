#include "shim/link.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include <atomic>
#include <cerrno>

#include "shim/session.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

using wire::RawSyscall;

constexpr int kSlots = 8;
// How often to look for an answer before sleeping until it comes: it takes some tens of
// microseconds, and so does being woken on a CPU that went idle.
constexpr int kLooks = 100;
// How often a program may close the connection under a request.
constexpr int kTakenAway = 8;
// Descriptors are kept where programs rarely count, and never among the standard streams.
constexpr int kLowest = 3;
constexpr int kHighNumbers[] = {960, 700, 200, 100, 40, 20, 10, kLowest};

struct Slot {
  std::atomic<bool> busy;
  std::atomic<int> fd;  // 0: none (a connection never gets number 0)
  std::atomic<int> pid;
  std::atomic<uint64_t> device;
  std::atomic<uint64_t> inode;
};

struct Connection {
  int fd = -1;
  int pid = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
};

// constinit: an initializer at run time would come after Start() and wipe what that put here.
constinit Slot slots[kSlots];
sockaddr_un broker_address;
uint8_t session_token[wire::kTokenSize];
bool token_known;
std::atomic<uint32_t> next_serial;
std::atomic<int> patience_ms{10'000};
// The process that this memory belongs to: a child of vfork() only borrows it, and one that was
// made past libc (_Fork, clone) never said that it has its own.
std::atomic<int> owner;

int Pid() { return static_cast<int>(RawSyscall(SYS_getpid)); }

bool Identify(int fd, uint64_t& device, uint64_t& inode) {
  struct stat status {};
  if (RawSyscall(SYS_fstat, fd, reinterpret_cast<long>(&status)) < 0) return false;
  device = status.st_dev;
  inode = status.st_ino;
  return true;
}

// True while the descriptor is still the connection that was made, in the process that made it: a
// program may put something else in its place, and a signal handler may fork.
bool IsSame(const Connection& connection) {
  uint64_t device = 0;
  uint64_t inode = 0;
  return connection.pid == Pid() && Identify(connection.fd, device, inode) &&
         device == connection.device && inode == connection.inode;
}

int Receive(const Connection& connection, wire::Type answer, uint32_t serial, const Limits& limits,
            wire::Received& received) {
  Wait wait(limits.signals);
  int64_t until = NowMs() + patience_ms.load(std::memory_order_relaxed);
  for (int look = 0;;) {
    const int error = wire::ReceiveMessage(connection.fd, received, /*wait=*/false);
    if (error == EAGAIN && look < kLooks) {
      // The broker may have been put on this very CPU.
      RawSyscall(SYS_sched_yield);
      ++look;
      continue;
    }
    if (error == EAGAIN) {
      const bool own = limits.deadline != 0 && limits.deadline < until;
      if (!IsSame(connection)) return EPIPE;
      const Woken woken = wait.Until(connection.fd, own ? limits.deadline : until);
      if (woken == Woken::kSignal) return EINTR;
      if (woken == Woken::kLate) return own ? ETIME : ETIMEDOUT;
      // What is read now must not be the program's.
      if (!IsSame(connection)) return EPIPE;
      continue;
    }
    if (error != 0) return error;
    if (received.header().type != answer || received.header().serial != serial) {
      wire::CloseDescriptors(received);
      return EPROTO;
    }
    if (answer != wire::Type::kDecision ||
        received.As<wire::Decision>().verdict != wire::Verdict::kWait) {
      return 0;
    }
    wire::CloseDescriptors(received);
    if (!limits.may_wait) return ECANCELED;
    // It is alive and at work: from here on it has as long again for its next word.
    until = NowMs() + patience_ms.load(std::memory_order_relaxed);
    look = kLooks;
  }
}

int Exchange(const Connection& connection, const void* request, uint32_t size,
             const int* descriptors, int count, wire::Type answer, const Limits& limits,
             wire::Received& received) {
  const auto* header = static_cast<const wire::Header*>(request);
  if (const int error =
          wire::SendMessage(connection.fd, request, size, descriptors, count, /*wait=*/true);
      error != 0) {
    return error == EAGAIN ? ETIMEDOUT : error;
  }
  return Receive(connection, answer, header->serial, limits, received);
}

int Connect(Connection& connection) {
  long fd = RawSyscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return static_cast<int>(-fd);
  // A broker that hangs is a refusal, not a program that hangs: connecting, asking. (Waiting has
  // its own ways: SO_RCVTIMEO would take what is known of signals away.)
  const int milliseconds = patience_ms.load(std::memory_order_relaxed);
  const timeval patience{milliseconds / 1000, milliseconds % 1000 * 1000L};
  RawSyscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, reinterpret_cast<long>(&patience),
             sizeof(patience));
  const int64_t until = NowMs() + milliseconds;
  long result;
  do {
    result = RawSyscall(SYS_connect, fd, reinterpret_cast<long>(&broker_address),
                        sizeof(broker_address));
    // Interrupted, a Unix socket is not connecting: it is done again, not for ever.
  } while (result == -EINTR && NowMs() < until);
  if (result < 0) {
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
  if (fd < kLowest) {
    // A stream of the program's that is closed: what it reads or writes there would be ours.
    RawSyscall(SYS_close, fd);
    return EMFILE;
  }
  connection.fd = static_cast<int>(fd);
  connection.pid = Pid();
  if (!Identify(connection.fd, connection.device, connection.inode)) return EBADF;
  return 0;
}

int AttachOn(const Connection& connection, const Limits& limits) {
  wire::Attach request{};
  request.header = wire::MakeHeader(wire::Type::kAttach, NextSerial());
  for (size_t i = 0; i < wire::kTokenSize; ++i) request.token[i] = session_token[i];
  wire::Received received;
  if (const int error = Exchange(connection, &request, sizeof(request), nullptr, 0,
                                 wire::Type::kAttached, limits, received);
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

// Takes a free slot; null when all are in use (many threads, or a signal handler on top of one),
// and where the slots are another process's: what is put into them would be lost to both.
Slot* Take() {
  if (owner.load(std::memory_order_relaxed) != Pid()) return nullptr;
  for (Slot& slot : slots) {
    if (!slot.busy.exchange(true, std::memory_order_acquire)) return &slot;
  }
  return nullptr;
}

void GiveBack(Slot* slot) {
  if (slot != nullptr) slot->busy.store(false, std::memory_order_release);
}

// Returns the slot's connection if it is still what it was, in this process; else none.
Connection Live(const Slot& slot) {
  const int fd = slot.fd.load(std::memory_order_relaxed);
  if (fd == 0) return Connection{};
  const Connection kept{fd, slot.pid.load(std::memory_order_relaxed),
                        slot.device.load(std::memory_order_relaxed),
                        slot.inode.load(std::memory_order_relaxed)};
  return IsSame(kept) ? kept : Connection{};
}

void Keep(Slot* slot, const Connection& connection) {
  slot->device.store(connection.device, std::memory_order_relaxed);
  slot->inode.store(connection.inode, std::memory_order_relaxed);
  slot->pid.store(connection.pid, std::memory_order_relaxed);
  slot->fd.store(connection.fd, std::memory_order_relaxed);
}

// Ends a connection; the broker drops what still waits on it.
void Drop(Slot* slot, const Connection& connection) {
  if (slot != nullptr) slot->fd.store(0, std::memory_order_relaxed);
  if (!IsSame(connection)) return;
  // A child may have inherited the descriptor: closing ours alone would tell the broker nothing.
  RawSyscall(SYS_shutdown, connection.fd, SHUT_RDWR);
  RawSyscall(SYS_close, connection.fd);
}

// In a child of fork() only this thread is left: what others had taken is nobody's, and the
// parent's connections are of no use. By number and process alone it could take them for its own:
// in a new PID namespace it may have the same.
void StartAnew() {
  owner.store(Pid(), std::memory_order_relaxed);
  for (Slot& slot : slots) {
    const int fd = slot.fd.exchange(0, std::memory_order_relaxed);
    uint64_t device = 0;
    uint64_t inode = 0;
    if (fd != 0 && Identify(fd, device, inode) && device == slot.device && inode == slot.inode) {
      RawSyscall(SYS_close, fd);
    }
    slot.busy.store(false, std::memory_order_relaxed);
  }
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
        wire::Received& received, const Limits& limits) {
  if (!token_known) return ENOTCONN;
  Slot* slot = Take();
  int error = EPIPE;
  // A broker that was restarted left a dead connection: a fresh one is tried once.
  for (int tries = 2, taken_away = 0; tries > 0 && error != 0;) {
    Connection connection = slot == nullptr ? Connection{} : Live(*slot);
    const bool fresh = connection.fd < 0;
    if (fresh) {
      if (slot != nullptr) slot->fd.store(0, std::memory_order_relaxed);
      error = Connect(connection);
      if (error == 0) error = AttachOn(connection, limits);
      if (error == 0 && slot != nullptr) Keep(slot, connection);
    }
    const bool attached = !fresh || error == 0;
    if (attached) {
      error = Exchange(connection, request, size, &descriptor, descriptor >= 0 ? 1 : 0, answer,
                       limits, received);
    }
    if (error == 0 && slot != nullptr) break;
    // That another thread of the program closed it says nothing of the broker; nor does an answer
    // to a request of that thread's, whose connection had the number before.
    const bool taken = error != 0 && connection.fd >= 0 && !IsSame(connection);
    if (connection.fd >= 0) Drop(slot, connection);
    const bool none = !attached && !taken && error != EPROTO;
    const bool final = error == ETIMEDOUT || error == EINTR || error == ETIME || error == ECANCELED;
    if (none || final) break;
    if (!taken || ++taken_away == kTakenAway) --tries;
  }
  GiveBack(slot);
  return error;
}

int AskApart(const void* request, uint32_t size, const int* descriptors, int count,
             wire::Type answer, wire::Received& received) {
  Connection connection;
  int error = Connect(connection);
  if (error == 0) {
    error = Exchange(connection, request, size, descriptors, count, answer, Limits{}, received);
  }
  if (connection.fd >= 0) Drop(nullptr, connection);
  return error;
}

uint32_t NextSerial() { return next_serial.fetch_add(1, std::memory_order_relaxed) + 1; }

int Attach() {
  Slot* slot = Take();
  Connection connection;
  int error = Connect(connection);
  if (error == 0) error = AttachOn(connection, Limits{});
  if (error != 0 || slot == nullptr) {
    if (connection.fd >= 0) Drop(nullptr, connection);
  } else {
    Keep(slot, connection);
  }
  GiveBack(slot);
  return error;
}

void AttachAll() {
  if (!token_known || owner.load(std::memory_order_relaxed) != Pid()) return;
  for (Slot& slot : slots) {
    if (slot.busy.exchange(true, std::memory_order_acquire)) continue;
    Connection connection = Live(slot);
    bool failed = false;
    if (connection.fd < 0) {
      failed = Connect(connection) != 0;
      if (!failed) {
        failed = AttachOn(connection, Limits{}) != 0;
        if (failed) {
          Drop(nullptr, connection);
        } else {
          Keep(&slot, connection);
        }
      }
    }
    GiveBack(&slot);
    if (failed) return;  // a broker that hangs is waited for once
  }
}

void OwnLinks() {
  owner.store(Pid(), std::memory_order_relaxed);
  pthread_atfork(nullptr, nullptr, StartAnew);
}

void SetPatience(int milliseconds) { patience_ms.store(milliseconds); }

bool IsLink(int fd) {
  if (fd <= 0) return false;
  for (const Slot& slot : slots) {
    if (slot.fd.load(std::memory_order_relaxed) == fd) return Live(slot).fd == fd;
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
    if (fd == 0 || count == room || Live(slot).fd != fd) continue;
    int place = count++;
    for (; place > 0 && fds[place - 1] > fd; --place) fds[place] = fds[place - 1];
    fds[place] = fd;
  }
  return count;
}

}  // namespace latchkey::shim
