#include "tools/latchkeyd/keymgr/vici/spki.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

namespace latchkey::broker::vici {
namespace {

// openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=alice.example
constexpr char kCertificate[] =
    "308201883082012da003020102021453f9aefa2dfeb03ac1718d43ddcf4b2a5a8d04d7300a06082a"
    "8648ce3d04030230183116301406035504030c0d616c6963652e6578616d706c653020170d323631"
    "3132373036343732355a180f32303831303833303036343732355a30183116301406035504030c0d"
    "616c6963652e6578616d706c653059301306072a8648ce3d020106082a8648ce3d03010703420004"
    "791de1b5a1211686b788daaa7fee13d14b0be7c7181fd5856c34ddc18bcfa103dfacaea55058302c"
    "388fae9dc07b769b688d1c4d8e18134b9c8b4f015ec227a5a3533051301d0603551d0e0416041431"
    "9642f3a9b242b8c8db67ecd79aa5f8594ba7f4301f0603551d23041830168014319642f3a9b242b8"
    "c8db67ecd79aa5f8594ba7f4300f0603551d130101ff040530030101ff300a06082a8648ce3d0403"
    "020349003046022100b1a95766d45a95bc3f2989e4c99952ba04a54da5a693da672e464cb489e5ce"
    "18022100cc3485e208cc72420020c21a793f551047e8601f68bb60757e2d76917a369410";
// openssl x509 -pubkey | openssl pkey -pubin -outform DER
constexpr char kKey[] =
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004791de1b5a1211686b788daaa7f"
    "ee13d14b0be7c7181fd5856c34ddc18bcfa103dfacaea55058302c388fae9dc07b769b688d1c4d8e"
    "18134b9c8b4f015ec227a5";

std::string Octets(std::string_view hex) {
  std::string octets;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    octets += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return octets;
}

// A field of less than 64 KiB.
std::string Field(char tag, const std::string& content) {
  std::string field(1, tag);
  if (content.size() >= 0x100) {
    field += '\x82';
    field += static_cast<char>(content.size() >> 8);
  } else if (content.size() >= 0x80) {
    field += '\x81';
  }
  field += static_cast<char>(content.size());
  return field + content;
}

TEST_CASE("The key of a certificate is its subjectPublicKeyInfo, header and all") {
  CHECK(SubjectPublicKeyInfo(Octets(kCertificate)) == Octets(kKey));
}

TEST_CASE("A certificate without a version, as the first ones were") {
  const std::string empty = Field('\x30', "");
  const std::string key = Field('\x30', std::string(300, 'k'));
  const std::string fields = Field('\x02', "\x01") + empty + empty + empty + empty + key;
  const std::string whole = Field('\x30', Field('\x30', fields) + empty + Field('\x03', "s"));
  CHECK(SubjectPublicKeyInfo(whole) == key);
  CHECK_FALSE(SubjectPublicKeyInfo(whole + "x"));
  CHECK_FALSE(SubjectPublicKeyInfo(Field('\x31', Field('\x30', fields) + empty + empty)));
  CHECK_FALSE(SubjectPublicKeyInfo(Field('\x30', Field('\x30', fields) + empty)));
  CHECK_FALSE(SubjectPublicKeyInfo(Field('\x30', Field('\x30', fields) + empty + empty + empty)));
}

TEST_CASE("Lengths have one form") {
  for (const char* bad : {"3081", "308100", "30817f", "3082007f", "3080", "3084ffffffff", "30",
                          "3f8100", "ffff", ""}) {
    CAPTURE(bad);
    CHECK_FALSE(SubjectPublicKeyInfo(Octets(bad)));
  }
}

TEST_CASE("No part of a certificate, and none with octets changed, is read beyond its end") {
  const std::string whole = Octets(kCertificate);
  for (size_t i = 0; i < whole.size(); ++i) CHECK_FALSE(SubjectPublicKeyInfo(whole.substr(0, i)));
  std::mt19937 dice(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = whole;
    for (int changes = 1 + static_cast<int>(dice() % 4); changes > 0; --changes) {
      text[dice() % text.size()] = static_cast<char>(dice());
    }
    const auto key = SubjectPublicKeyInfo(text);
    if (key) CHECK(text.find(*key) != std::string::npos);
  }
}

}  // namespace
}  // namespace latchkey::broker::vici
