// Sets of algorithms, and a site's classes of them.
#include "policy/algorithms.h"

#include <catch2/catch.hpp>
#include <set>

namespace latchkey::policy {
namespace {

ProtectionSpec Spec(std::vector<std::string> encryption, std::vector<std::string> integrity = {},
                    uint16_t bits = 128) {
  ProtectionSpec spec;
  spec.encryption = std::move(encryption);
  spec.integrity = std::move(integrity);
  spec.min_key_bits = bits;
  return spec;
}

TEST_CASE("There is one bit for every combination, with a name of its own that reads back") {
  REQUIRE(Algorithms().size() <= kMostAlgorithms);
  std::set<std::string> names;
  for (size_t i = 0; i < Algorithms().size(); ++i) {
    const Algorithm& algorithm = Algorithms()[i];
    CHECK(names.insert(algorithm.ToString()).second);
    SuiteClasses classes;
    classes.BeginClass();
    CHECK(classes.Add(algorithm.ToString()) == "");
    AlgorithmSet one;
    one.set(i);
    CHECK(classes.AtLeast(one) == one);
    Protection protection;
    protection.protocol = algorithm.protocol;
    if (algorithm.encryption != nullptr) protection.encryption = algorithm.encryption->name;
    if (algorithm.integrity != nullptr) protection.integrity = algorithm.integrity->name;
    protection.key_bits = algorithm.key_bits;
    CHECK(PlaceOf(protection) == i);
  }
  CHECK(names.size() == 70);
}

TEST_CASE("What a protection accepts") {
  CHECK(Describe(Accepted(Spec({"aes-gcm-16"}))) ==
        "aes-gcm-16:128, aes-gcm-16:192, aes-gcm-16:256");
  CHECK(Describe(Accepted(Spec({"aes-gcm-16", "chacha20-poly1305"}, {}, 256))) ==
        "aes-gcm-16:256, chacha20-poly1305");
  CHECK(Describe(Accepted(Spec({"aes-cbc"}, {"hmac-sha1"}, 192))) ==
        "aes-cbc:192+hmac-sha1, aes-cbc:256+hmac-sha1");
  CHECK(Describe(Accepted(Spec({"null"}, {"hmac-sha1"}, 0))) == "null+hmac-sha1");
  CHECK(Accepted(Spec({"null"}, {"hmac-sha1"})).none());
  // Left out: whatever hides what it carries, 19 with a tag of their own and 6 ciphers in 6 ways.
  CHECK(Accepted(Spec({})).count() == 19 + 36);
  CHECK(Accepted(Spec({}, {}, 0)).count() == 19 + 36);
  CHECK(Accepted(Spec({"aes-gmac"})).count() == 3);
  ProtectionSpec ah = Spec({});
  ah.protocol = SaProtocol::kAh;
  CHECK(Accepted(ah).count() == 6);
  ah.integrity = {"hmac-sha2-256", "aes-cmac"};
  CHECK(Describe(Accepted(ah)) == "hmac-sha2-256, aes-cmac");
  CHECK(Describe(Accepted(Spec({})), 1) == "aes-gcm-16:128 and 54 more");
  CHECK(Describe({}) == "none");
}

TEST_CASE("An SA of no combination of ours has no place") {
  Protection sa{SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
  CHECK(PlaceOf(sa));
  sa.key_bits = 255;
  CHECK_FALSE(PlaceOf(sa));
  sa.key_bits = 256;
  sa.integrity = "hmac-sha1";
  CHECK_FALSE(PlaceOf(sa));
  sa = {SaProtocol::kEsp, Mode::kTransport, "aes-cbc", "", 256, true, false};
  CHECK_FALSE(PlaceOf(sa));
  CHECK_FALSE(PlaceOf(Protection{}));
  sa = {SaProtocol::kAh, Mode::kTransport, "", "hmac-sha1", 0, true, false};
  CHECK(PlaceOf(sa));
}

TEST_CASE("Classes: as strong or stronger, and nothing else") {
  SuiteClasses classes;
  classes.BeginClass();
  REQUIRE(classes.Add("aes-gcm-16:256") == "");
  REQUIRE(classes.Add("chacha20-poly1305") == "");
  classes.BeginClass();
  REQUIRE(classes.Add("aes-gcm-16:128") == "");
  classes.BeginClass();
  REQUIRE(classes.Add("aes-cbc+hmac-sha1") == "");
  const auto at_least = [&](const ProtectionSpec& spec) {
    return Describe(classes.AtLeast(Accepted(spec)), 9);
  };
  CHECK(at_least(Spec({"chacha20-poly1305"})) == "aes-gcm-16:256, chacha20-poly1305");
  CHECK(at_least(Spec({"aes-gcm-16"})) ==
        "aes-gcm-16:128, aes-gcm-16:192, aes-gcm-16:256, chacha20-poly1305");
  CHECK(at_least(Spec({"aes-cbc"}, {"hmac-sha1"}, 256)) ==
        "aes-gcm-16:128, aes-gcm-16:256, chacha20-poly1305, aes-cbc:128+hmac-sha1, "
        "aes-cbc:192+hmac-sha1, aes-cbc:256+hmac-sha1");
  // In no class: worth nothing but itself.
  CHECK(at_least(Spec({"aes-gcm-8"}, {}, 256)) == "aes-gcm-8:256");
  CHECK(SuiteClasses().AtLeast(Accepted(Spec({"aes-gcm-8"}, {}, 256))).count() == 1);
}

TEST_CASE("Names that are no suite, or are in two classes") {
  SuiteClasses classes;
  classes.BeginClass();
  for (const char* name :
       {"", ":", "+", "des3", "aes-gcm-16:", "aes-gcm-16:0", "aes-gcm-16:257", "aes-gcm-16:256 ",
        "aes-gcm-16+hmac-sha1", "aes-cbc+", "aes-cbc+des3", "aes-cbc+aes-gcm-16", "hmac-sha1:160",
        "hmac-sha1+hmac-sha1", "aes-cbc:128+hmac-sha1:160", "chacha20-poly1305:128"}) {
    INFO(name);
    CHECK(classes.Add(name).starts_with("expected "));
  }
  CHECK(classes.Add("aes-gcm-16") == "");
  classes.BeginClass();
  CHECK(classes.Add("aes-gcm-16:256") == "expected each suite in one class");
}

}  // namespace
}  // namespace latchkey::policy
