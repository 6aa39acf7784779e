// Derives the keys and SPIs of a pair of manual SAs from a shared secret, so that both hosts come
// to the same ones without talking.
//
// For labs and static set-ups: the keys are the same each time, there is no rekeying and no forward
// secrecy, and after the SAs were deleted and installed again sequence numbers begin anew, so that
// old packets can be replayed once. A key manager does better in all of it.
//
//   prk        = BLAKE2b-256(secret, key = "latchkey sa v1" || 0 || 0)
//   direction  = BLAKE2b-256(source || destination || reqid || suite, key = prk)
//   encryption = crypto_kdf(direction, 1, "latchkey"), integrity = …(2), SPI = …(3)
#ifndef TOOLS_LATCHKEYD_KERNEL_SA_DERIVE_H_
#define TOOLS_LATCHKEYD_KERNEL_SA_DERIVE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "policy/model/address.h"
#include "policy/model/error.h"
#include "policy/suites.h"
#include "tools/latchkeyd/kernel/secret.h"

namespace latchkey::broker {

// What protects an SA, as named on the command line: "aes-gcm-16:256" or
// "aes-cbc:256/hmac-sha2-256"; without a key length, the longest there is.
struct SaSuite {
  const policy::Suite* cipher = nullptr;
  const policy::Suite* integrity = nullptr;  // null for AEAD
  uint16_t key_bits = 0;                     // of the cipher, without its salt
  std::string ToString() const;              // in full: "aes-gcm-16:256"
};

inline constexpr std::string_view kDefaultSaSuite = "aes-gcm-16:256";

// kBadRequest for an unknown name or key length, for a cipher without integrity, for AEAD with it,
// and for no encryption at all.
Result<SaSuite> ParseSaSuite(std::string_view text);

struct SaKeys {
  uint32_t spi = 0;   // host order, at least 256
  Secret encryption;  // with the salt at its end, as the kernel takes it
  std::optional<Secret> integrity;
};

// Returns what protects packets from `source` to `destination` under `reqid`. kBadRequest unless
// both are addresses of one family, and the secret has at least 16 octets.
Result<SaKeys> DeriveSa(std::span<const uint8_t> secret, const Address& source,
                        const Address& destination, uint32_t reqid, const SaSuite& suite);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_SA_DERIVE_H_
