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
    {"aes-gcm-16", Kind::kAead, "rfc4106(gcm(aes))", 128, 32, kAes},
    {"aes-gcm-12", Kind::kAead, "rfc4106(gcm(aes))", 96, 32, kAes},
    {"aes-gcm-8", Kind::kAead, "rfc4106(gcm(aes))", 64, 32, kAes},
    {"aes-ccm-16", Kind::kAead, "rfc4309(ccm(aes))", 128, 24, kAes},
    {"aes-ccm-12", Kind::kAead, "rfc4309(ccm(aes))", 96, 24, kAes},
    {"aes-ccm-8", Kind::kAead, "rfc4309(ccm(aes))", 64, 24, kAes},
    {"chacha20-poly1305", Kind::kAead, "rfc7539esp(chacha20,poly1305)", 128, 32, k256},
    {"aes-cbc", Kind::kCipher, "cbc(aes)", 0, 0, kAes},
    {"aes-ctr", Kind::kCipher, "rfc3686(ctr(aes))", 0, 32, kAes},
    {"null", Kind::kCipher, "ecb(cipher_null)", 0, 0, kNoKey},
    {"hmac-sha1", Kind::kIntegrity, "hmac(sha1)", 96, 0, kSha1},
    {"hmac-sha2-256", Kind::kIntegrity, "hmac(sha256)", 128, 0, k256},
    {"hmac-sha2-384", Kind::kIntegrity, "hmac(sha384)", 192, 0, k384},
    {"hmac-sha2-512", Kind::kIntegrity, "hmac(sha512)", 256, 0, k512},
    {"aes-xcbc", Kind::kIntegrity, "xcbc(aes)", 96, 0, k128},
    {"aes-cmac", Kind::kIntegrity, "cmac(aes)", 96, 0, k128},
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

}  // namespace latchkey::policy
