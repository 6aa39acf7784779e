// The table of suites against the names and lengths of the kernel's SAD.
#include "policy/suites.h"

#include <catch2/catch.hpp>
#include <set>
#include <string_view>
#include <vector>

namespace latchkey::policy {
namespace {

TEST_CASE("Every suite is as RFC 4106, 4309, 7634, 3686, 4868, 3566 and 4494 have it") {
  struct Row {
    std::string_view name;
    Kind kind;
    std::string_view kernel;
    uint16_t icv_bits;
    uint16_t salt_bits;
    std::vector<uint16_t> key_bits;
  };
  const std::vector<Row> rows = {
      {"aes-gcm-16", Kind::kAead, "rfc4106(gcm(aes))", 128, 32, {128, 192, 256}},
      {"aes-gcm-12", Kind::kAead, "rfc4106(gcm(aes))", 96, 32, {128, 192, 256}},
      {"aes-gcm-8", Kind::kAead, "rfc4106(gcm(aes))", 64, 32, {128, 192, 256}},
      {"aes-ccm-16", Kind::kAead, "rfc4309(ccm(aes))", 128, 24, {128, 192, 256}},
      {"aes-ccm-12", Kind::kAead, "rfc4309(ccm(aes))", 96, 24, {128, 192, 256}},
      {"aes-ccm-8", Kind::kAead, "rfc4309(ccm(aes))", 64, 24, {128, 192, 256}},
      {"chacha20-poly1305", Kind::kAead, "rfc7539esp(chacha20,poly1305)", 128, 32, {256}},
      {"aes-gmac", Kind::kAead, "rfc4543(gcm(aes))", 128, 32, {128, 192, 256}},
      {"aes-cbc", Kind::kCipher, "cbc(aes)", 0, 0, {128, 192, 256}},
      {"aes-ctr", Kind::kCipher, "rfc3686(ctr(aes))", 0, 32, {128, 192, 256}},
      {"null", Kind::kCipher, "ecb(cipher_null)", 0, 0, {0}},
      {"hmac-sha1", Kind::kIntegrity, "hmac(sha1)", 96, 0, {160}},
      {"hmac-sha2-256", Kind::kIntegrity, "hmac(sha256)", 128, 0, {256}},
      {"hmac-sha2-384", Kind::kIntegrity, "hmac(sha384)", 192, 0, {384}},
      {"hmac-sha2-512", Kind::kIntegrity, "hmac(sha512)", 256, 0, {512}},
      {"aes-xcbc", Kind::kIntegrity, "xcbc(aes)", 96, 0, {128}},
      {"aes-cmac", Kind::kIntegrity, "cmac(aes)", 96, 0, {128}},
  };
  REQUIRE(Suites().size() == rows.size());
  for (const Row& row : rows) {
    INFO(row.name);
    const Suite* suite = SuiteByName(row.name);
    REQUIRE(suite != nullptr);
    CHECK(suite->kind == row.kind);
    CHECK(suite->kernel == row.kernel);
    CHECK(suite->icv_bits == row.icv_bits);
    CHECK(suite->salt_bits == row.salt_bits);
    CHECK(std::vector<uint16_t>(suite->key_bits.begin(), suite->key_bits.end()) == row.key_bits);
    CHECK(SuiteByKernel(row.kind, row.kernel, row.icv_bits)->kernel == row.kernel);
    if (row.icv_bits != 0) CHECK(SuiteByKernel(row.kind, row.kernel, row.icv_bits) == suite);
  }
}

TEST_CASE(
    "Every suite has IKE's number and name (IANA, IKEv2 transforms) and strongSwan's keyword") {
  struct Row {
    std::string_view name;
    uint16_t transform;
    std::string_view ike;
    uint16_t key_bits;
    std::string_view swan;
  };
  const std::vector<Row> rows = {
      {"aes-gcm-16", 20, "AES_GCM_16", 256, "aes256gcm16"},
      {"aes-gcm-12", 19, "AES_GCM_12", 192, "aes192gcm12"},
      {"aes-gcm-8", 18, "AES_GCM_8", 128, "aes128gcm8"},
      {"aes-ccm-16", 16, "AES_CCM_16", 128, "aes128ccm16"},
      {"aes-ccm-12", 15, "AES_CCM_12", 128, "aes128ccm12"},
      {"aes-ccm-8", 14, "AES_CCM_8", 128, "aes128ccm8"},
      {"chacha20-poly1305", 28, "CHACHA20_POLY1305", 256, "chacha20poly1305"},
      {"aes-gmac", 21, "NULL_AES_GMAC", 256, "aes256gmac"},
      {"aes-cbc", 12, "AES_CBC", 256, "aes256"},
      {"aes-ctr", 13, "AES_CTR", 128, "aes128ctr"},
      {"null", 11, "NULL", 0, "null"},
      {"hmac-sha1", 2, "HMAC_SHA1_96", 160, "sha1"},
      {"hmac-sha2-256", 12, "HMAC_SHA2_256_128", 256, "sha256"},
      {"hmac-sha2-384", 13, "HMAC_SHA2_384_192", 384, "sha384"},
      {"hmac-sha2-512", 14, "HMAC_SHA2_512_256", 512, "sha512"},
      {"aes-xcbc", 5, "AES_XCBC_96", 128, "aesxcbc"},
      {"aes-cmac", 8, "AES_CMAC_96", 128, "aescmac"},
  };
  REQUIRE(Suites().size() == rows.size());
  for (const Row& row : rows) {
    INFO(row.name);
    const Suite* suite = SuiteByName(row.name);
    REQUIRE(suite != nullptr);
    CHECK(suite->transform == row.transform);
    CHECK(SuiteByIke(row.ike) == suite);
    CHECK(SwanKeyword(*suite, row.key_bits) == row.swan);
  }
  CHECK(SuiteByIke("") == nullptr);
  CHECK(SuiteByIke("aes-gcm-16") == nullptr);
}

TEST_CASE("Names are unique") {
  std::set<std::string_view> names;
  for (const Suite& suite : Suites()) CHECK(names.insert(suite.name).second);
}

TEST_CASE("What is not in the table is not found") {
  CHECK(SuiteByName("") == nullptr);
  CHECK(SuiteByName("AES-GCM-16") == nullptr);
  CHECK(SuiteByName("aes-gcm") == nullptr);
  CHECK(SuiteByName("des3") == nullptr);
  CHECK(SuiteByKernel(Kind::kCipher, "cbc(des3_ede)", 0) == nullptr);
  CHECK(SuiteByKernel(Kind::kCipher, "rfc4106(gcm(aes))", 128) == nullptr);
  CHECK(SuiteByKernel(Kind::kAead, "rfc4106(gcm(aes))", 32) == nullptr);
  // The truncation of the drafts, which some kernels still default to.
  CHECK(SuiteByKernel(Kind::kIntegrity, "hmac(sha256)", 96) == nullptr);
}

TEST_CASE("An ICV of 0 finds the first, and where it is not looked at any will do") {
  CHECK(SuiteByKernel(Kind::kAead, "rfc4106(gcm(aes))", 0)->name == "aes-gcm-16");
  CHECK(SuiteByKernel(Kind::kCipher, "cbc(aes)", 96)->name == "aes-cbc");
}

}  // namespace
}  // namespace latchkey::policy
