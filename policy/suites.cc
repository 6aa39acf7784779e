#include "policy/suites.h"

#include <algorithm>

namespace latchkey::policy {
namespace {

constexpr uint16_t kAes[] = {128, 192, 256};
constexpr uint16_t k256[] = {256};
constexpr uint16_t kNoKey[] = {0};
constexpr uint16_t kSha1[] = {160};
constexpr uint16_t k384[] = {384};
constexpr uint16_t k512[] = {512};
constexpr uint16_t k128[] = {128};

constexpr Suite kSuites[] = {
    {"aes-gcm-16", Kind::kAead, "rfc4106(gcm(aes))", 128, 32, kAes, 20, "AES_GCM_16", "aes*gcm16",
     true},
    {"aes-gcm-12", Kind::kAead, "rfc4106(gcm(aes))", 96, 32, kAes, 19, "AES_GCM_12", "aes*gcm12",
     true},
    {"aes-gcm-8", Kind::kAead, "rfc4106(gcm(aes))", 64, 32, kAes, 18, "AES_GCM_8", "aes*gcm8",
     true},
    {"aes-ccm-16", Kind::kAead, "rfc4309(ccm(aes))", 128, 24, kAes, 16, "AES_CCM_16", "aes*ccm16",
     true},
    {"aes-ccm-12", Kind::kAead, "rfc4309(ccm(aes))", 96, 24, kAes, 15, "AES_CCM_12", "aes*ccm12",
     true},
    {"aes-ccm-8", Kind::kAead, "rfc4309(ccm(aes))", 64, 24, kAes, 14, "AES_CCM_8", "aes*ccm8",
     true},
    {"chacha20-poly1305", Kind::kAead, "rfc7539esp(chacha20,poly1305)", 128, 32, k256, 28,
     "CHACHA20_POLY1305", "chacha20poly1305", true},
    {"aes-gmac", Kind::kAead, "rfc4543(gcm(aes))", 128, 32, kAes, 21, "NULL_AES_GMAC", "aes*gmac"},
    {"aes-cbc", Kind::kCipher, "cbc(aes)", 0, 0, kAes, 12, "AES_CBC", "aes*", true},
    {"aes-ctr", Kind::kCipher, "rfc3686(ctr(aes))", 0, 32, kAes, 13, "AES_CTR", "aes*ctr", true},
    {"null", Kind::kCipher, "ecb(cipher_null)", 0, 0, kNoKey, 11, "NULL", "null"},
    {"hmac-sha1", Kind::kIntegrity, "hmac(sha1)", 96, 0, kSha1, 2, "HMAC_SHA1_96", "sha1"},
    {"hmac-sha2-256", Kind::kIntegrity, "hmac(sha256)", 128, 0, k256, 12, "HMAC_SHA2_256_128",
     "sha256"},
    {"hmac-sha2-384", Kind::kIntegrity, "hmac(sha384)", 192, 0, k384, 13, "HMAC_SHA2_384_192",
     "sha384"},
    {"hmac-sha2-512", Kind::kIntegrity, "hmac(sha512)", 256, 0, k512, 14, "HMAC_SHA2_512_256",
     "sha512"},
    {"aes-xcbc", Kind::kIntegrity, "xcbc(aes)", 96, 0, k128, 5, "AES_XCBC_96", "aesxcbc"},
    {"aes-cmac", Kind::kIntegrity, "cmac(aes)", 96, 0, k128, 8, "AES_CMAC_96", "aescmac"},
};

}  // namespace

std::span<const Suite> Suites() { return kSuites; }

const Suite* SuiteByName(std::string_view name) {
  const auto* it = std::ranges::find(kSuites, name, &Suite::name);
  return it == std::end(kSuites) ? nullptr : it;
}

const Suite* SuiteByKernel(Kind kind, std::string_view kernel, uint16_t icv_bits) {
  const auto* it = std::ranges::find_if(kSuites, [&](const Suite& suite) {
    return suite.kind == kind && suite.kernel == kernel &&
           (icv_bits == 0 || suite.icv_bits == 0 || suite.icv_bits == icv_bits);
  });
  return it == std::end(kSuites) ? nullptr : it;
}

const Suite* SuiteByIke(std::string_view ike) {
  const auto* it = std::ranges::find(kSuites, ike, &Suite::ike);
  return it == std::end(kSuites) ? nullptr : it;
}

std::string SwanKeyword(const Suite& suite, uint16_t key_bits) {
  std::string keyword(suite.swan);
  const size_t star = keyword.find('*');
  return star == std::string::npos ? keyword : keyword.replace(star, 1, std::to_string(key_bits));
}

}  // namespace latchkey::policy
