#include "tools/latchkeyd/kernel/sa_derive.h"

#include <sodium.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <vector>

namespace latchkey::broker {
namespace {

constexpr char kExtractKey[crypto_generichash_KEYBYTES_MIN + 1] = "latchkey sa v1";  // NULs after
constexpr char kContext[crypto_kdf_CONTEXTBYTES + 1] = "latchkey";
constexpr size_t kOutput = crypto_kdf_BYTES_MAX;  // 64 octets; what is too much is cut off
constexpr uint32_t kFirstSpi = 256;               // RFC 4303, 2.1: those below are reserved

enum Purpose : uint64_t { kEncryption = 1, kIntegrity = 2, kSpi = 3 };

std::unexpected<Error> BadSuite(std::string_view text, const std::string& why) {
  return Fail(Reason::kBadRequest, "read suite \"" + std::string(text) + "\"", why);
}

void AppendNumber(std::vector<uint8_t>* out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<uint8_t>(value >> shift));
}

void AppendAddress(std::vector<uint8_t>* out, const Address& address) {
  out->push_back(static_cast<uint8_t>(address.family));
  out->insert(out->end(), address.octets.begin(), address.octets.end());
}

// What a direction's keys are for, in octets that can be read one way only.
std::vector<uint8_t> Describe(const Address& source, const Address& destination, uint32_t reqid,
                              const SaSuite& suite) {
  std::vector<uint8_t> out;
  AppendAddress(&out, source);
  AppendAddress(&out, destination);
  AppendNumber(&out, reqid);
  const std::string name = suite.ToString();
  out.insert(out.end(), name.begin(), name.end());
  return out;
}

Result<Secret> Expand(const Secret& key, Purpose purpose, size_t size) {
  Result<Secret> whole = Secret::Make(kOutput);
  if (!whole) return whole;
  if (size > kOutput || crypto_kdf_derive_from_key(whole->octets().data(), kOutput, purpose,
                                                   kContext, key.octets().data()) != 0) {
    return Fail(Reason::kKernelRefused, "derive key");
  }
  Result<Secret> part = Secret::Make(size);
  if (part) std::ranges::copy(whole->octets().first(size), part->octets().begin());
  return part;
}

Result<Secret> DirectionKey(std::span<const uint8_t> secret, const std::vector<uint8_t>& use) {
  Result<Secret> extracted = Secret::Make(crypto_kdf_KEYBYTES);
  Result<Secret> key = Secret::Make(crypto_kdf_KEYBYTES);
  if (!extracted) return extracted;
  if (!key) return key;
  const auto* label = reinterpret_cast<const uint8_t*>(kExtractKey);
  if (crypto_generichash(extracted->octets().data(), crypto_kdf_KEYBYTES, secret.data(),
                         secret.size(), label, crypto_generichash_KEYBYTES_MIN) != 0 ||
      crypto_generichash(key->octets().data(), crypto_kdf_KEYBYTES, use.data(), use.size(),
                         extracted->octets().data(), crypto_kdf_KEYBYTES) != 0) {
    return Fail(Reason::kKernelRefused, "derive key");
  }
  return key;
}

}  // namespace

std::string SaSuite::ToString() const {
  std::string text = std::string(cipher->name) + ":" + std::to_string(key_bits);
  if (integrity != nullptr) text += "/" + std::string(integrity->name);
  return text;
}

Result<SaSuite> ParseSaSuite(std::string_view text) {
  SaSuite suite;
  std::string_view cipher = text.substr(0, text.find('/'));
  const std::string_view name = cipher.substr(0, cipher.find(':'));
  suite.cipher = policy::SuiteByName(name);
  if (suite.cipher == nullptr || suite.cipher->kind == policy::Kind::kIntegrity) {
    return BadSuite(text, "no such cipher");
  }
  suite.key_bits = suite.cipher->key_bits.back();
  if (cipher.size() > name.size()) {
    cipher.remove_prefix(name.size() + 1);
    const auto [stop, error] = std::from_chars(cipher.begin(), cipher.end(), suite.key_bits);
    if (error != std::errc() || stop != cipher.end())
      return BadSuite(text, "a key length is a number");
  }
  const auto& lengths = suite.cipher->key_bits;
  if (suite.key_bits == 0) return BadSuite(text, "no encryption");
  if (std::ranges::find(lengths, suite.key_bits) == lengths.end()) {
    return BadSuite(text, "the cipher has no such key length");
  }
  const bool wants = suite.cipher->kind == policy::Kind::kCipher;
  const size_t slash = text.find('/');
  if (wants != (slash != std::string_view::npos)) {
    return BadSuite(text, wants ? "expected /INTEGRITY" : "the cipher has integrity of its own");
  }
  if (!wants) return suite;
  suite.integrity = policy::SuiteByName(text.substr(slash + 1));
  if (suite.integrity == nullptr || suite.integrity->kind != policy::Kind::kIntegrity) {
    return BadSuite(text, "no such integrity algorithm");
  }
  return suite;
}

Result<SaKeys> DeriveSa(std::span<const uint8_t> secret, const Address& source,
                        const Address& destination, uint32_t reqid, const SaSuite& suite) {
  if (secret.size() < kShortestSecret) {
    return Fail(Reason::kBadRequest, "derive SA", "the secret has fewer than 16 octets");
  }
  if (source.family == Family::kNone || source.family != destination.family ||
      source == destination || source.IsAny() || destination.IsAny()) {
    return Fail(Reason::kBadRequest, "derive SA", "expected two addresses of one family");
  }
  if (sodium_init() < 0) return Fail(Reason::kKernelRefused, "start libsodium");
  Result<Secret> key = DirectionKey(secret, Describe(source, destination, reqid, suite));
  if (!key) return std::unexpected(key.error());
  Result<Secret> spi = Expand(*key, kSpi, 4);
  if (!spi) return std::unexpected(spi.error());
  Result<Secret> encryption =
      Expand(*key, kEncryption, (suite.key_bits + suite.cipher->salt_bits) / size_t{8});
  if (!encryption) return std::unexpected(encryption.error());
  SaKeys keys{0, std::move(*encryption), std::nullopt};
  uint32_t value = 0;
  for (const uint8_t octet : spi->octets()) value = (value << 8) | octet;
  keys.spi = kFirstSpi + value % (~0u - kFirstSpi);
  if (suite.integrity != nullptr) {
    Result<Secret> integrity =
        Expand(*key, kIntegrity, suite.integrity->key_bits.back() / size_t{8});
    if (!integrity) return std::unexpected(integrity.error());
    keys.integrity = std::move(*integrity);
  }
  return keys;
}

}  // namespace latchkey::broker
