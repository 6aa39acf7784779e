// Signatures of policies in minisign's format, prehashed ("ED"): what `minisign -S` writes and
// `latchkey sign` too. The signature covers the file's octets as they are; it is checked before
// anything parses them.
//
// The older form without a hash ("Ed") is refused: one form, one path through the code.
#ifndef POLICY_SIGNATURE_H_
#define POLICY_SIGNATURE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "policy/model/error.h"

namespace latchkey::policy {

// Tells keys apart, and proves nothing.
using KeyId = std::array<uint8_t, 8>;

struct PublicKey {
  KeyId id{};
  std::array<uint8_t, 32> key{};

  // Reads 56 characters, "RW…".
  static std::optional<PublicKey> FromBase64(std::string_view text);
  // Reads a key file: a comment line and the key, or the key alone.
  static Result<PublicKey> FromFile(std::string_view text);

  std::string ToBase64() const;
  std::string ToFile() const;
  std::string Name() const;  // 16 hex digits, as minisign shows a key
};

struct Signature {
  KeyId id{};
  std::array<uint8_t, 64> signature{};
  std::string trusted_comment;
  std::array<uint8_t, 64> comment_signature{};
};

inline constexpr size_t kMaxSignature = 16384;  // octets of a signature file

// Reads a signature file, strictly: four lines of the right lengths and no more. bad-signature for
// anything else.
Result<Signature> ReadSignature(std::string_view text);

// Checks that `key` signed `text` and the trusted comment; bad-signature otherwise.
Result<void> Verify(std::string_view text, const Signature& signature, const PublicKey& key);

// A text in memory that is locked, guarded by unmapped pages and wiped when it goes.
class GuardedText {
 public:
  // Makes one of `size` NULs. An error when no such memory can be had.
  static Result<GuardedText> Make(size_t size);

  std::span<char> octets() { return {octets_.get(), size_}; }
  std::string_view view() const { return {octets_.get(), size_}; }

 private:
  struct Wipe {
    void operator()(char* octets) const;
  };
  GuardedText(char* octets, size_t size) : octets_(octets), size_(size) {}

  std::unique_ptr<char, Wipe> octets_;
  size_t size_ = 0;
};

// A signing key, in memory that is locked, guarded by unmapped pages and wiped.
class SecretKey {
 public:
  // Makes a key of libsodium's random numbers.
  static Result<SecretKey> Generate();
  // Reads a key file, minisign's too. `password`: for one that is encrypted; unused otherwise.
  static Result<SecretKey> FromFile(std::string_view text, std::string_view password);
  // True when FromFile() will need a password.
  static bool NeedsPassword(std::string_view text);

  // Returns the file's text, encrypted under `password` (scrypt, which takes a gibibyte of memory
  // and seconds), or as it is when there is none.
  Result<GuardedText> ToFile(std::optional<std::string_view> password) const;
  PublicKey Public() const;

  // Returns the text of a signature file for `text`. `comment` is the trusted comment: one line of
  // printable characters.
  Result<std::string> Sign(std::string_view text, std::string_view comment) const;

 private:
  struct Parts;
  struct Wipe {
    void operator()(Parts* parts) const;
  };
  SecretKey() = default;
  static Result<SecretKey> Empty();

  std::unique_ptr<Parts, Wipe> parts_;
};

}  // namespace latchkey::policy

#endif  // POLICY_SIGNATURE_H_
