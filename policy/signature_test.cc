// Signatures: what verifies, what is refused, and that one bit anywhere makes the difference.
#include "policy/signature.h"

#include <sodium.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace latchkey::policy {
namespace {

constexpr char kText[] = "latchkey = 1\napplication = \"a\"\n";

SecretKey Key() {
  Result<SecretKey> key = SecretKey::Generate();
  REQUIRE(key);
  return std::move(*key);
}

bool Verifies(const std::string& text, const std::string& file, const PublicKey& key) {
  const Result<Signature> signature = ReadSignature(file);
  return signature && Verify(text, *signature, key);
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::string Join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST_CASE("What is signed verifies, by that key alone") {
  const SecretKey key = Key();
  const Result<std::string> file = key.Sign(kText, "timestamp:1\tfile:a.toml\thashed");
  REQUIRE(file);
  CHECK(Verifies(kText, *file, key.Public()));
  CHECK(ReadSignature(*file)->trusted_comment == "timestamp:1\tfile:a.toml\thashed");
  CHECK(Lines(*file).size() == 4);
  const SecretKey other = Key();
  CHECK_FALSE(Verifies(kText, *file, other.Public()));
  PublicKey renamed = other.Public();
  renamed.id = key.Public().id;
  CHECK_FALSE(Verifies(kText, *file, renamed));
  CHECK(Verifies("", *key.Sign("", ""), key.Public()));
}

TEST_CASE("One bit of the text, or of the signature, and it is refused") {
  const SecretKey key = Key();
  const std::string text = kText;
  const std::string file = *key.Sign(text, "of a test");
  for (size_t i = 0; i < text.size() * 8; ++i) {
    std::string changed = text;
    changed[i / 8] = static_cast<char>(changed[i / 8] ^ 1 << i % 8);
    if (Verifies(changed, file, key.Public())) FAIL("bit " << i << " of the text");
  }
  const size_t free_text = file.find('\n');  // the untrusted comment is nobody's word
  for (size_t i = free_text * 8; i < file.size() * 8; ++i) {
    std::string changed = file;
    changed[i / 8] = static_cast<char>(changed[i / 8] ^ 1 << i % 8);
    if (Verifies(text, changed, key.Public())) FAIL("bit " << i << " of the signature");
  }
}

TEST_CASE("A signature file is four lines of the right kind and nothing else") {
  const SecretKey key = Key();
  const std::string good = *key.Sign(kText, "c");
  const std::vector<std::string> lines = Lines(good);
  const auto with = [&](size_t which, const std::string& line) {
    std::vector<std::string> changed = lines;
    changed[which] = line;
    return Join(changed);
  };
  std::string unhashed(74, '\0');
  unhashed[0] = 'E';
  unhashed[1] = 'd';
  std::string encoded(sodium_base64_encoded_len(74, sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(encoded.data(), encoded.size(),
                    reinterpret_cast<const unsigned char*>(unhashed.data()), unhashed.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  encoded.pop_back();
  struct Row {
    std::string text;
    const char* line;
  };
  const Row rows[] = {
      {"", "line 1"},
      {with(0, "comment: x"), "line 1"},
      {with(0, "untrusted comment: " + std::string(2000, 'x')), "line 1"},
      {with(1, ""), "line 2"},
      {with(1, lines[1].substr(1)), "line 2"},
      {with(1, lines[1] + "A"), "line 2"},
      {with(1, " " + lines[1]), "line 2"},
      {with(1, lines[1] + "\r"), "line 2"},
      {with(1, encoded), "without a hash"},
      {with(2, "comment: x"), "line 3"},
      {with(2, "trusted comment: \x1b[2J"), "line 3"},
      {with(2, "trusted comment: " + std::string(9000, 'x')), "line 3"},
      {with(3, "AAAA"), "line 4"},
      {good.substr(0, good.size() - 1), "line 4"},
      {good + "\n", "line 5"},
      {good + good, "line 5"},
      {std::string(20000, 'x'), "longer"},
  };
  CHECK(ReadSignature(good));
  for (const Row& row : rows) {
    INFO(row.text.substr(0, 300));
    const Result<Signature> read = ReadSignature(row.text);
    REQUIRE_FALSE(read);
    CHECK(read.error().reason == Reason::kBadSignature);
    CHECK(read.error().value.find(row.line) != std::string::npos);
  }
}

TEST_CASE("Public keys: two forms, one encoding") {
  const PublicKey key = Key().Public();
  CHECK(key.ToBase64().size() == 56);
  CHECK(key.ToBase64().starts_with("RW"));
  CHECK(PublicKey::FromBase64(key.ToBase64())->key == key.key);
  CHECK(PublicKey::FromFile(key.ToFile())->id == key.id);
  CHECK(PublicKey::FromFile(key.ToBase64()));
  CHECK_FALSE(PublicKey::FromBase64(key.ToBase64() + "\n"));
  CHECK_FALSE(PublicKey::FromBase64(""));
  CHECK_FALSE(PublicKey::FromFile("untrusted comment: no end"));
  CHECK_FALSE(PublicKey::FromFile(key.ToFile() + "x"));
  std::string other = key.ToBase64();
  other[1] = 'X';
  CHECK_FALSE(PublicKey::FromBase64(other));
}

TEST_CASE("Secret keys: written, read, damaged") {
  const SecretKey key = Key();
  const Result<GuardedText> file = key.ToFile(std::nullopt);
  REQUIRE(file);
  const std::string plain(file->view());
  CHECK(std::ranges::count(plain, '\n') == 2);
  CHECK(plain.ends_with('\n'));
  CHECK_FALSE(SecretKey::NeedsPassword(plain));
  const Result<SecretKey> again = SecretKey::FromFile(plain, "");
  REQUIRE(again);
  CHECK(again->Public().key == key.Public().key);
  CHECK(Verifies(kText, *again->Sign(kText, "c"), key.Public()));
  for (size_t i = plain.find('\n') + 1; i < plain.size() - 1; ++i) {
    std::string changed = plain;
    changed[i] = changed[i] == 'B' ? 'C' : 'B';
    const Result<SecretKey> read = SecretKey::FromFile(changed, "");
    // The salt and the limits mean nothing to a key that is not encrypted.
    if (read && read->Public().key != key.Public().key) FAIL("octet " << i);
  }
  CHECK_FALSE(SecretKey::FromFile("", ""));
  CHECK_FALSE(SecretKey::FromFile(key.Public().ToFile(), ""));
  CHECK_FALSE(key.Sign(kText, "two\nlines"));
}

}  // namespace
}  // namespace latchkey::policy
