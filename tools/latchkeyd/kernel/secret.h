// Key material in memory that is locked, guarded on both sides and wiped when it goes.
#ifndef TOOLS_LATCHKEYD_KERNEL_SECRET_H_
#define TOOLS_LATCHKEYD_KERNEL_SECRET_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "policy/model/error.h"

namespace latchkey::broker {

class Secret {
 public:
  // Makes one of `size` zero octets. An error when no such memory can be had.
  static Result<Secret> Make(size_t size);

  std::span<uint8_t> octets() { return {octets_.get(), size_}; }
  std::span<const uint8_t> octets() const { return {octets_.get(), size_}; }

 private:
  struct Free {
    void operator()(uint8_t* octets) const;
  };
  Secret(uint8_t* octets, size_t size) : octets_(octets), size_(size) {}

  std::unique_ptr<uint8_t, Free> octets_;
  size_t size_ = 0;
};

inline constexpr size_t kShortestSecret = 16;
inline constexpr size_t kLongestSecret = 4096;

// Reads a shared secret: every octet of the file counts, a newline at its end too, so both hosts
// need the very same file. It must be a regular file of 16 to 4096 octets, owned by the caller or
// root, and give group and others no right at all. kBadRequest otherwise.
Result<Secret> ReadSecretFile(const std::string& path);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_SECRET_H_
