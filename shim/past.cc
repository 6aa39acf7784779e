#include "shim/past.h"

#include <atomic>
#include <cstdint>

namespace latchkey::shim {
namespace {

constexpr int kBits = 64;
std::atomic<uint64_t> noted[kPastLimit / kBits];
std::atomic<bool> datagrams{false};

uint64_t BitOf(int fd) { return uint64_t{1} << (static_cast<unsigned>(fd) % kBits); }
std::atomic<uint64_t>& WordOf(int fd) { return noted[static_cast<unsigned>(fd) / kBits]; }
bool Kept(int fd) { return fd >= 0 && fd < kPastLimit; }

}  // namespace

void NotePast(int fd) {
  if (Kept(fd)) WordOf(fd).fetch_or(BitOf(fd), std::memory_order_relaxed);
}

void ForgetPast(int fd) {
  // As a rule there is nothing to forget, and nothing is written.
  if (Kept(fd) && MayHavePast(fd)) WordOf(fd).fetch_and(~BitOf(fd), std::memory_order_relaxed);
}

bool MayHavePast(int fd) {
  return !Kept(fd) || (WordOf(fd).load(std::memory_order_relaxed) & BitOf(fd)) != 0;
}

void NoteDatagrams() { datagrams.store(true, std::memory_order_relaxed); }

bool AnyDatagrams() { return datagrams.load(std::memory_order_relaxed); }

}  // namespace latchkey::shim
