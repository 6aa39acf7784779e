#include "shim/held.h"

#include <pthread.h>
#include <sys/syscall.h>

#include <atomic>

#include "shim/fd_bits.h"
#include "shim/wire/raw_syscall.h"

namespace latchkey::shim {
namespace {

constinit FdBits held;
constinit FdBits unheld;
constinit FdBits hidden;  // stdio's
std::atomic<int> owner{0};
std::atomic<bool> stopped{false};

void Own() {
  owner.store(static_cast<int>(wire::RawSyscall(SYS_getpid)), std::memory_order_relaxed);
}

bool MayNote(int fd) {
  return !stopped.load(std::memory_order_seq_cst) && !hidden.Has(fd) && AreOwnHints();
}

}  // namespace

void OwnHints() {
  Own();
  pthread_atfork(nullptr, nullptr, Own);
}

bool AreOwnHints() { return wire::RawSyscall(SYS_getpid) == owner.load(std::memory_order_relaxed); }

void NoteHeld(int fd) {
  if (!MayNote(fd)) return;
  held.Set(fd);
  unheld.Clear(fd);
  // Stopped, or taken by stdio, in between: whoever did so may have cleared it before it was set.
  if (stopped.load(std::memory_order_seq_cst) || hidden.Has(fd)) held.Clear(fd);
}

bool IsHeld(int fd) { return held.Has(fd); }

void NoteFree(int fd) {
  if (MayNote(fd)) unheld.Set(fd);
}

bool IsFree(int fd) { return unheld.Has(fd); }

void ForgetHeld(int fd) {
  held.Clear(fd);
  unheld.Clear(fd);
}

void ForgetHeldRange(unsigned first, unsigned last) {
  held.ClearRange(first, last);
  unheld.ClearRange(first, last);
}

void NeverHeld(int fd) {
  hidden.Set(fd);
  ForgetHeld(fd);
}

void FreshHeld(int fd) {
  hidden.Clear(fd);
  ForgetHeld(fd);
}

void StopHints() {
  stopped.store(true, std::memory_order_seq_cst);
  ForgetHeldRange(0, ~0U);
}

}  // namespace latchkey::shim
