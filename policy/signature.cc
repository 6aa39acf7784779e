#include "policy/signature.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace latchkey::policy {
namespace {

constexpr std::string_view kKeyAlgorithm = "Ed";
constexpr std::string_view kHashedAlgorithm = "ED";
constexpr std::string_view kUntrusted = "untrusted comment: ";
constexpr std::string_view kTrusted = "trusted comment: ";
constexpr size_t kMaxComment = 1024;
constexpr size_t kMaxTrusted = 8192;

std::unexpected<Error> Bad(std::string value) {
  return Fail(Reason::kBadSignature, "read signature", std::move(value));
}

std::string Base64(std::span<const uint8_t> octets) {
  std::string text(sodium_base64_encoded_len(octets.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), octets.data(), octets.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();  // the NUL
  return text;
}

// Fills `octets` whole, or fails: one encoding for one value, nothing before, between or after.
bool FromBase64Exactly(std::string_view text, std::span<uint8_t> octets) {
  size_t length = 0;
  const char* end = nullptr;
  if (sodium_base642bin(octets.data(), octets.size(), text.data(), text.size(), nullptr, &length,
                        &end, sodium_base64_VARIANT_ORIGINAL) != 0) {
    return false;
  }
  if (length != octets.size() || end != text.data() + text.size()) return false;
  std::string again = Base64(octets);
  const bool same = again == text;
  sodium_memzero(again.data(), again.size());  // it may be a secret key's
  return same;
}

// Takes the first line off `text`, without its end; nothing when there is no whole line.
std::optional<std::string_view> TakeLine(std::string_view& text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

// What a terminal would act on must not come out of a comment.
bool IsPlain(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto octet = static_cast<unsigned char>(text[i]);
    if ((octet < 0x20 && octet != '\t') || octet == 0x7f) return false;
    if (octet == 0xc2 && i + 1 < text.size()) {
      const auto next = static_cast<unsigned char>(text[i + 1]);
      if (next >= 0x80 && next < 0xa0) return false;
    }
  }
  return true;
}

std::array<uint8_t, 64> HashOf(std::string_view text) {
  std::array<uint8_t, 64> hash{};
  crypto_generichash(hash.data(), hash.size(), reinterpret_cast<const uint8_t*>(text.data()),
                     text.size(), nullptr, 0);
  return hash;
}

std::vector<uint8_t> CommentInput(const std::array<uint8_t, 64>& signature,
                                  std::string_view comment) {
  std::vector<uint8_t> input(signature.begin(), signature.end());
  input.insert(input.end(), comment.begin(), comment.end());
  return input;
}

}  // namespace

std::optional<PublicKey> PublicKey::FromBase64(std::string_view text) {
  std::array<uint8_t, 42> octets{};
  if (!FromBase64Exactly(text, octets)) return std::nullopt;
  if (!std::equal(kKeyAlgorithm.begin(), kKeyAlgorithm.end(), octets.begin())) return std::nullopt;
  PublicKey key;
  std::copy_n(octets.begin() + 2, key.id.size(), key.id.begin());
  std::copy_n(octets.begin() + 10, key.key.size(), key.key.begin());
  return key;
}

Result<PublicKey> PublicKey::FromFile(std::string_view text) {
  const auto bad = [](std::string value) {
    return Fail(Reason::kBadSignature, "read public key", std::move(value));
  };
  if (text.starts_with(kUntrusted)) {
    const std::optional<std::string_view> comment = TakeLine(text);
    if (!comment || comment->size() > kMaxComment) return bad("its comment line does not end");
  }
  if (text.ends_with('\n')) text.remove_suffix(1);
  const std::optional<PublicKey> key = FromBase64(text);
  if (!key) return bad("expected a comment line and a minisign public key of 56 characters");
  return *key;
}

std::string PublicKey::ToBase64() const {
  std::vector<uint8_t> octets(kKeyAlgorithm.begin(), kKeyAlgorithm.end());
  octets.insert(octets.end(), id.begin(), id.end());
  octets.insert(octets.end(), key.begin(), key.end());
  return Base64(octets);
}

std::string PublicKey::Name() const {
  std::string name;
  // minisign shows the octets as a number of the little-endian kind.
  for (size_t i = id.size(); i > 0; --i) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    name += kDigits[id.at(i - 1) >> 4];
    name += kDigits[id.at(i - 1) & 15];
  }
  return name;
}

std::string PublicKey::ToFile() const {
  return std::string(kUntrusted) + "minisign public key " + Name() + "\n" + ToBase64() + "\n";
}

Result<Signature> ReadSignature(std::string_view text) {
  if (text.size() > kMaxSignature) return Bad("longer than any signature");
  const std::optional<std::string_view> comment = TakeLine(text);
  if (!comment || !comment->starts_with(kUntrusted) || comment->size() > kMaxComment) {
    return Bad("line 1: expected \"untrusted comment: \" and a text");
  }
  const std::optional<std::string_view> first = TakeLine(text);
  std::array<uint8_t, 74> octets{};
  if (!first || !FromBase64Exactly(*first, octets)) {
    return Bad("line 2: expected a signature of 100 characters");
  }
  if (std::equal(kKeyAlgorithm.begin(), kKeyAlgorithm.end(), octets.begin())) {
    return Bad("line 2: a signature without a hash (\"Ed\"): expected \"ED\", minisign -H -S");
  }
  if (!std::equal(kHashedAlgorithm.begin(), kHashedAlgorithm.end(), octets.begin())) {
    return Bad("line 2: expected a signature of the kind \"ED\"");
  }
  Signature signature;
  std::copy_n(octets.begin() + 2, signature.id.size(), signature.id.begin());
  std::copy_n(octets.begin() + 10, signature.signature.size(), signature.signature.begin());
  const std::optional<std::string_view> trusted = TakeLine(text);
  if (!trusted || !trusted->starts_with(kTrusted) || trusted->size() > kMaxTrusted ||
      !IsPlain(*trusted)) {
    return Bad("line 3: expected \"trusted comment: \" and a printable text");
  }
  signature.trusted_comment = trusted->substr(kTrusted.size());
  const std::optional<std::string_view> last = TakeLine(text);
  if (!last || !FromBase64Exactly(*last, signature.comment_signature)) {
    return Bad("line 4: expected a signature of 88 characters");
  }
  if (!text.empty()) return Bad("line 5: expected nothing after the fourth line");
  return signature;
}

Result<void> Verify(std::string_view text, const Signature& signature, const PublicKey& key) {
  const auto bad = [](const char* value) {
    return Fail(Reason::kBadSignature, "verify signature", value);
  };
  if (signature.id != key.id) return bad("made with another key");
  const std::array<uint8_t, 64> hash = HashOf(text);
  if (crypto_sign_verify_detached(signature.signature.data(), hash.data(), hash.size(),
                                  key.key.data()) != 0) {
    return bad("it is not of this text, or not by this key");
  }
  const std::vector<uint8_t> input = CommentInput(signature.signature, signature.trusted_comment);
  if (crypto_sign_verify_detached(signature.comment_signature.data(), input.data(), input.size(),
                                  key.key.data()) != 0) {
    return bad("its trusted comment was changed");
  }
  return {};
}

// ---- secret keys ----

// As it lies in the file, behind the salt and the limits; all of it encrypted.
struct SecretKey::Parts {
  uint8_t id[8];
  uint8_t key[64];
  uint8_t check[32];
};

namespace {

// The file's octets, as minisign lays them out.
struct KeyFile {
  char algorithm[2];
  char kdf[2];
  char check[2];
  uint8_t salt[32];
  uint8_t operations[8];  // little-endian
  uint8_t memory[8];
  uint8_t parts[104];
};
static_assert(sizeof(KeyFile) == 158);

// It decoded: in guarded memory as well. Null when there is none to be had.
struct WipeKeyFile {
  void operator()(KeyFile* file) const { sodium_free(file); }
};
using GuardedKeyFile = std::unique_ptr<KeyFile, WipeKeyFile>;

GuardedKeyFile MakeKeyFile() {
  if (sodium_init() < 0) return nullptr;
  GuardedKeyFile file(static_cast<KeyFile*>(sodium_malloc(sizeof(KeyFile))));
  if (file) std::memset(file.get(), 0, sizeof(KeyFile));
  return file;
}

std::span<uint8_t> OctetsOf(KeyFile& file) {
  return {reinterpret_cast<uint8_t*>(&file), sizeof(file)};
}

uint64_t Number(const uint8_t (&octets)[8]) {
  uint64_t value = 0;
  for (size_t i = 8; i > 0; --i) value = value << 8 | octets[i - 1];
  return value;
}

void Put(uint8_t (&octets)[8], uint64_t value) {
  for (uint8_t& octet : octets) {
    octet = static_cast<uint8_t>(value);
    value >>= 8;
  }
}

// Limits as minisign sets them. More would let a file that somebody made ask for any amount.
constexpr uint64_t kMostOperations = crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE;
constexpr uint64_t kMostMemory = crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE;

Result<void> Cipher(KeyFile& file, std::string_view password) {
  const auto failed = [](const char* value) {
    return Fail(Reason::kBadSignature, "secret key", value);
  };
  const uint64_t operations = Number(file.operations);
  const uint64_t memory = Number(file.memory);
  if (operations > kMostOperations || memory > kMostMemory) {
    return failed("it asks for more work than minisign ever does");
  }
  std::array<uint8_t, sizeof(file.parts)> stream{};
  const int bad = crypto_pwhash_scryptsalsa208sha256(stream.data(), stream.size(), password.data(),
                                                     password.size(), file.salt, operations,
                                                     static_cast<size_t>(memory));
  for (size_t i = 0; i < stream.size(); ++i) file.parts[i] ^= stream.at(i);
  sodium_memzero(stream.data(), stream.size());
  if (bad != 0) return failed("not enough memory for scrypt");
  return {};
}

bool Decode(std::string_view text, KeyFile& file) {
  if (text.starts_with(kUntrusted) && !TakeLine(text)) return false;
  if (text.ends_with('\n')) text.remove_suffix(1);
  return FromBase64Exactly(text, OctetsOf(file));
}

bool IsPlainFile(const KeyFile& file) { return file.kdf[0] == 0 && file.kdf[1] == 0; }

void Check(const uint8_t* id, const uint8_t* key, uint8_t (&check)[32]) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, sizeof(check));
  crypto_generichash_update(&state, reinterpret_cast<const uint8_t*>(kKeyAlgorithm.data()), 2);
  crypto_generichash_update(&state, id, 8);
  crypto_generichash_update(&state, key, 64);
  crypto_generichash_final(&state, check, sizeof(check));
  sodium_memzero(&state, sizeof(state));
}

}  // namespace

void GuardedText::Wipe::operator()(char* octets) const { sodium_free(octets); }

Result<GuardedText> GuardedText::Make(size_t size) {
  if (sodium_init() < 0) return Fail(Reason::kKernelRefused, "guard memory", "no libsodium");
  auto* octets = static_cast<char*>(sodium_malloc(size == 0 ? 1 : size));
  if (octets == nullptr) return Fail(Reason::kKernelRefused, "guard memory", "there is none");
  std::memset(octets, 0, size);
  return GuardedText(octets, size);
}

void SecretKey::Wipe::operator()(Parts* parts) const { sodium_free(parts); }

Result<SecretKey> SecretKey::Empty() {
  if (sodium_init() < 0) return Fail(Reason::kKernelRefused, "secret key", "no random numbers");
  SecretKey key;
  key.parts_.reset(static_cast<Parts*>(sodium_malloc(sizeof(Parts))));
  if (!key.parts_) return Fail(Reason::kKernelRefused, "secret key", "no guarded memory");
  return key;
}

Result<SecretKey> SecretKey::Generate() {
  Result<SecretKey> key = Empty();
  if (!key) return key;
  Parts& parts = *key->parts_;
  std::array<uint8_t, 32> unused{};
  crypto_sign_keypair(unused.data(), parts.key);
  randombytes_buf(parts.id, sizeof(parts.id));
  Check(parts.id, parts.key, parts.check);
  return key;
}

bool SecretKey::NeedsPassword(std::string_view text) {
  const GuardedKeyFile file = MakeKeyFile();
  return file && Decode(text, *file) && !IsPlainFile(*file);
}

Result<SecretKey> SecretKey::FromFile(std::string_view text, std::string_view password) {
  const auto bad = [](const char* value) {
    return Fail(Reason::kBadSignature, "read secret key", value);
  };
  Result<SecretKey> key = Empty();
  if (!key) return key;
  const GuardedKeyFile guarded = MakeKeyFile();
  if (!guarded) return bad("no guarded memory");
  KeyFile& file = *guarded;
  if (!Decode(text, file)) return bad("expected a comment line and a minisign secret key");
  if (std::memcmp(file.algorithm, "Ed", 2) != 0 || std::memcmp(file.check, "B2", 2) != 0) {
    return bad("expected a key of the kind \"Ed\" with a check of the kind \"B2\"");
  }
  if (!IsPlainFile(file)) {
    if (std::memcmp(file.kdf, "Sc", 2) != 0) return bad("expected scrypt, or no encryption");
    if (Result<void> done = Cipher(file, password); !done) return std::unexpected(done.error());
  }
  Parts& parts = *key->parts_;
  std::memcpy(&parts, file.parts, sizeof(parts));
  uint8_t check[32];
  Check(parts.id, parts.key, check);
  // minisign leaves the check of a key without a password empty.
  const bool unchecked = IsPlainFile(file) && sodium_is_zero(parts.check, sizeof(parts.check)) != 0;
  if (!unchecked && sodium_memcmp(check, parts.check, sizeof(check)) != 0) {
    return bad(IsPlainFile(file) ? "it is damaged" : "the password is wrong");
  }
  return key;
}

Result<GuardedText> SecretKey::ToFile(std::optional<std::string_view> password) const {
  const GuardedKeyFile guarded = MakeKeyFile();
  if (!guarded) return Fail(Reason::kKernelRefused, "secret key", "no guarded memory");
  KeyFile& file = *guarded;
  std::memcpy(file.algorithm, "Ed", 2);
  std::memcpy(file.check, "B2", 2);
  std::memcpy(file.parts, parts_.get(), sizeof(file.parts));
  if (password) {
    std::memcpy(file.kdf, "Sc", 2);
    randombytes_buf(file.salt, sizeof(file.salt));
    Put(file.operations, kMostOperations);
    Put(file.memory, kMostMemory);
    if (Result<void> done = Cipher(file, *password); !done) return std::unexpected(done.error());
  }
  const std::string head = std::string(kUntrusted) +
                           (password ? "minisign encrypted secret key\n" : "minisign secret key\n");
  // libsodium ends it with a NUL, which becomes the end of the line.
  const size_t length = sodium_base64_encoded_len(sizeof(file), sodium_base64_VARIANT_ORIGINAL);
  Result<GuardedText> text = GuardedText::Make(head.size() + length);
  if (!text) return text;
  const std::span<char> octets = text->octets();
  head.copy(octets.data(), head.size());
  sodium_bin2base64(octets.data() + head.size(), length, OctetsOf(file).data(), sizeof(file),
                    sodium_base64_VARIANT_ORIGINAL);
  octets.back() = '\n';
  return text;
}

PublicKey SecretKey::Public() const {
  PublicKey key;
  std::memcpy(key.id.data(), parts_->id, key.id.size());
  // Ed25519's secret key ends in the public one.
  std::memcpy(key.key.data(), parts_->key + 32, key.key.size());
  return key;
}

Result<std::string> SecretKey::Sign(std::string_view text, std::string_view comment) const {
  if (!IsPlain(comment) || comment.size() + kTrusted.size() > kMaxTrusted) {
    return Fail(Reason::kBadSignature, "sign", "the comment must be one printable line");
  }
  const std::array<uint8_t, 64> hash = HashOf(text);
  std::array<uint8_t, 64> signature{};
  crypto_sign_detached(signature.data(), nullptr, hash.data(), hash.size(), parts_->key);
  std::vector<uint8_t> octets(kHashedAlgorithm.begin(), kHashedAlgorithm.end());
  octets.insert(octets.end(), parts_->id, parts_->id + sizeof(parts_->id));
  octets.insert(octets.end(), signature.begin(), signature.end());
  const std::vector<uint8_t> input = CommentInput(signature, comment);
  std::array<uint8_t, 64> second{};
  crypto_sign_detached(second.data(), nullptr, input.data(), input.size(), parts_->key);
  return std::string(kUntrusted) + "signature from latchkey, key " + Public().Name() + "\n" +
         Base64(octets) + "\n" + std::string(kTrusted) + std::string(comment) + "\n" +
         Base64(second) + "\n";
}

}  // namespace latchkey::policy
