#include "tools/latchkeyd/kernel/sa_derive.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

namespace latchkey::broker {
namespace {

std::string Hex(std::span<const uint8_t> octets) {
  std::string text;
  for (const uint8_t octet : octets) {
    text += "0123456789abcdef"[octet >> 4];
    text += "0123456789abcdef"[octet & 15];
  }
  return text;
}

std::vector<uint8_t> TestSecret() {
  std::vector<uint8_t> secret(32);
  std::iota(secret.begin(), secret.end(), uint8_t{0});
  return secret;
}

SaKeys Derive(const char* source, const char* destination, const char* suite, uint32_t reqid = 7) {
  Result<SaKeys> keys = DeriveSa(TestSecret(), *Address::Parse(source),
                                 *Address::Parse(destination), reqid, *ParseSaSuite(suite));
  REQUIRE(keys);
  return std::move(*keys);
}

// The values were computed apart from this code, by BLAKE2b of another library.
TEST_CASE("Known answers") {
  const SaKeys there = Derive("10.9.0.1", "10.9.0.2", "aes-gcm-16:256");
  CHECK(there.spi == 0xd194b507);
  CHECK(Hex(there.encryption.octets()) ==
        "bac5ab6447c8f916c9d036f5c943bd9f266eca3ccc0be709c18180d8920b97e65c10dee3");
  CHECK_FALSE(there.integrity);
  const SaKeys back = Derive("10.9.0.2", "10.9.0.1", "aes-gcm-16:256");
  CHECK(back.spi == 0x2ad0a841);
  CHECK(Hex(back.encryption.octets()) ==
        "e65612b26014c29c894ec70c0c0f503e1b140e6a3618a356e581bb45f74805cd561fe2fa");
  const SaKeys cbc = Derive("10.9.0.1", "10.9.0.2", "aes-cbc:256/hmac-sha2-256");
  CHECK(cbc.spi == 0x20cacce0);
  CHECK(Hex(cbc.encryption.octets()) ==
        "160ba0d71fb090607a3936c5f2e8c994e2a5c9e0bd99f3ed9bc74b3029ad1e89");
  REQUIRE(cbc.integrity);
  CHECK(Hex(cbc.integrity->octets()) ==
        "616b355c012fb4b237b7d6cc4314c81643d3af15faaf20b9da62c70eb0ae0262");
}

TEST_CASE("Everything that tells SAs apart changes the keys") {
  const SaKeys base = Derive("10.9.0.1", "10.9.0.2", "aes-gcm-16:256");
  const SaKeys others[] = {
      Derive("10.9.0.2", "10.9.0.1", "aes-gcm-16:256"),
      Derive("10.9.0.1", "10.9.0.3", "aes-gcm-16:256"),
      Derive("10.9.0.1", "10.9.0.2", "aes-gcm-16:256", 8),
      Derive("10.9.0.1", "10.9.0.2", "chacha20-poly1305"),
      Derive("fd00::1", "fd00::2", "aes-gcm-16:256"),
  };
  for (const SaKeys& other : others) {
    CHECK(other.spi != base.spi);
    CHECK(Hex(other.encryption.octets()) != Hex(base.encryption.octets()));
  }
  CHECK(Derive("10.9.0.1", "10.9.0.2", "aes-gcm-16").spi == base.spi);  // the same suite, in short
  std::vector<uint8_t> secret = TestSecret();
  secret[31] ^= 1;
  CHECK(DeriveSa(secret, *Address::Parse("10.9.0.1"), *Address::Parse("10.9.0.2"), 7,
                 *ParseSaSuite("aes-gcm-16"))
            ->spi != base.spi);
}

TEST_CASE("What cannot be a pair of SAs is refused") {
  const SaSuite suite = *ParseSaSuite(kDefaultSaSuite);
  const Address v4 = *Address::Parse("10.9.0.1");
  const Address v6 = *Address::Parse("fd00::1");
  const std::vector<uint8_t> secret = TestSecret();
  CHECK_FALSE(DeriveSa(secret, v4, v6, 7, suite));
  CHECK_FALSE(DeriveSa(secret, v4, v4, 7, suite));
  CHECK_FALSE(DeriveSa(secret, v4, Address{}, 7, suite));
  CHECK_FALSE(DeriveSa(secret, v4, Address::AnyOf(Family::kV4), 7, suite));
  CHECK_FALSE(DeriveSa(std::span(secret).first(15), v4, *Address::Parse("10.9.0.2"), 7, suite));
}

TEST_CASE("Suites as named") {
  CHECK(ParseSaSuite("aes-gcm-16")->ToString() == "aes-gcm-16:256");
  CHECK(ParseSaSuite("aes-gcm-16:128")->key_bits == 128);
  CHECK(ParseSaSuite("aes-cbc/hmac-sha2-512")->ToString() == "aes-cbc:256/hmac-sha2-512");
  for (const char* text :
       {"", "aes", "aes-gcm-16:", "aes-gcm-16:100", "aes-gcm-16:256x", "aes-gcm-16:-1",
        "aes-gcm-16/hmac-sha2-256", "aes-cbc", "aes-cbc:256", "aes-cbc/", "aes-cbc/aes-cbc",
        "hmac-sha2-256", "null/hmac-sha2-256", "null:0/hmac-sha2-256", "aes-cbc//hmac-sha2-256"}) {
    CAPTURE(text);
    const Result<SaSuite> suite = ParseSaSuite(text);
    REQUIRE_FALSE(suite);
    CHECK(suite.error().reason == Reason::kBadRequest);
  }
}

}  // namespace
}  // namespace latchkey::broker
