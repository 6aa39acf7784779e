// One bit for each descriptor up to a limit: what the hints by descriptor (past.h, held.h) are kept
// in. Async-signal-safe, no lock, no start-up code.
#ifndef SHIM_FD_BITS_H_
#define SHIM_FD_BITS_H_

#include <atomic>
#include <cstdint>

namespace latchkey::shim {

inline constexpr int kFdLimit = 16'384;

class FdBits {
 public:
  // True for a descriptor that has a bit.
  static bool Kept(int fd) { return fd >= 0 && fd < kFdLimit; }

  // Of a descriptor that has none nothing is set, and nothing is.
  bool Has(int fd) const {
    return Kept(fd) && (words_[WordOf(fd)].load(std::memory_order_relaxed) & BitOf(fd)) != 0;
  }
  void Set(int fd) {
    if (Kept(fd)) words_[WordOf(fd)].fetch_or(BitOf(fd), std::memory_order_relaxed);
  }
  void Clear(int fd) {
    // As a rule there is nothing to clear, and nothing is written.
    if (Has(fd)) words_[WordOf(fd)].fetch_and(~BitOf(fd), std::memory_order_relaxed);
  }
  void ClearRange(unsigned first, unsigned last) {
    const unsigned end = last < kFdLimit ? last + 1 : kFdLimit;
    for (unsigned fd = first; fd < end;) {
      const bool whole = fd % kBits == 0 && words_[fd / kBits].load(std::memory_order_relaxed) == 0;
      if (!whole) Clear(static_cast<int>(fd));
      fd += whole ? kBits : 1;
    }
  }

 private:
  static constexpr int kBits = 64;
  static uint64_t BitOf(int fd) { return uint64_t{1} << (static_cast<unsigned>(fd) % kBits); }
  static unsigned WordOf(int fd) { return static_cast<unsigned>(fd) / kBits; }

  std::atomic<uint64_t> words_[kFdLimit / kBits] = {};
};

}  // namespace latchkey::shim

#endif  // SHIM_FD_BITS_H_
