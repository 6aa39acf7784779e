#include "shim/past.h"

#include <atomic>

#include "shim/fd_bits.h"
#include "shim/held.h"

namespace latchkey::shim {
namespace {

constinit FdBits noted;
std::atomic<bool> datagrams{false};

}  // namespace

void NotePast(int fd) { noted.Set(fd); }

void ForgetPast(int fd) {
  if (noted.Has(fd) && AreOwnHints()) noted.Clear(fd);
}

bool MayHavePast(int fd) { return !FdBits::Kept(fd) || noted.Has(fd); }

void NoteDatagrams() { datagrams.store(true, std::memory_order_relaxed); }

bool AnyDatagrams() { return datagrams.load(std::memory_order_relaxed); }

}  // namespace latchkey::shim
