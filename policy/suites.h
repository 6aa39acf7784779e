// One table of cipher suites: our name and what the kernel's SAD calls it.
#ifndef POLICY_SUITES_H_
#define POLICY_SUITES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace latchkey::policy {

enum class Kind : uint8_t { kAead, kCipher, kIntegrity };

struct Suite {
  std::string_view name;  // "aes-gcm-16"
  Kind kind;
  std::string_view kernel;             // "rfc4106(gcm(aes))"
  uint16_t icv_bits;                   // AEAD: tag; integrity: truncation; 0 = not looked at
  uint16_t salt_bits;                  // part of the kernel's key length that is no key
  std::span<const uint16_t> key_bits;  // lengths that exist, without the salt
};

std::span<const Suite> Suites();

// Finds a suite by our name, or by the kernel's algorithm name and ICV length in bits (0 = any).
const Suite* SuiteByName(std::string_view name);
const Suite* SuiteByKernel(Kind kind, std::string_view kernel, uint16_t icv_bits);

}  // namespace latchkey::policy

#endif  // POLICY_SUITES_H_
