// One table of cipher suites: our name, the IKEv2 transform, strongSwan's keyword, and what the
// kernel's SAD calls it.
#ifndef POLICY_SUITES_H_
#define POLICY_SUITES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
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
  uint16_t transform;                  // IKEv2's number: type 1 (encryption) or 3 (integrity)
  std::string_view ike;                // its name, as VICI shows it: "AES_GCM_16"
  std::string_view swan;               // strongSwan's keyword, "*" where the key length goes
  bool confidential = false;           // hides what it carries
};

std::span<const Suite> Suites();

// Finds a suite by our name, or by the kernel's algorithm name and ICV length in bits (0 = any).
const Suite* SuiteByName(std::string_view name);
const Suite* SuiteByKernel(Kind kind, std::string_view kernel, uint16_t icv_bits);

// Finds a suite by the name of its IKEv2 transform.
const Suite* SuiteByIke(std::string_view ike);

// Returns strongSwan's keyword for a suite with keys of `key_bits`: "aes256gcm16", "sha256".
std::string SwanKeyword(const Suite& suite, uint16_t key_bits);

}  // namespace latchkey::policy

#endif  // POLICY_SUITES_H_
