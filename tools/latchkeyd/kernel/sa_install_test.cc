#include "tools/latchkeyd/kernel/sa_install.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

#include "tools/latchkeyd/kernel/real_kernel.h"
#include "tools/latchkeyd/kernel/test_netns.h"
#include "tools/latchkeyd/kernel/xfrm_parse.h"

namespace latchkey::broker {
namespace {

const std::vector<uint8_t> kSecret(32, 0x5a);
constexpr char kCbc[] = "aes-cbc:128/hmac-sha2-256";

ManualSa Manual(const char* local, const char* remote, const std::string& suite) {
  return ManualSa{*Address::Parse(local), *Address::Parse(remote), 7, suite};
}

TEST_CASE("The request says what the suite's name says") {
  const Address source = *Address::Parse("fd00::1");
  const Address destination = *Address::Parse("fd00::2");
  for (const std::string& name : {std::string(kDefaultSaSuite), std::string(kCbc),
                                  std::string("chacha20-poly1305:256"), std::string("aes-ccm-8")}) {
    CAPTURE(name);
    const SaSuite suite = *ParseSaSuite(name);
    const Result<SaKeys> keys = DeriveSa(kSecret, source, destination, 7, suite);
    REQUIRE(keys);
    const std::vector<uint8_t> message = BuildNewSa(source, destination, 7, suite, *keys);
    const std::optional<Sa> sa = ParseSa(message);
    REQUIRE(sa);
    CHECK(sa->key == SaKey{destination, keys->spi, SaProtocol::kEsp});
    CHECK(sa->source == source);
    CHECK(sa->reqid == 7);
    // Only packets between the two, whatever other addresses the key's owner writes on them.
    CHECK(sa->selector.Matches(kProtocolTcp, {source, 1}, {destination, 2}));
    CHECK_FALSE(
        sa->selector.Matches(kProtocolTcp, {*Address::Parse("fd00::3"), 1}, {destination, 2}));
    CHECK_FALSE(sa->selector.Matches(kProtocolTcp, {source, 1}, {*Address::Parse("fd00::3"), 2}));
    CHECK(sa->protection.mode == Mode::kTransport);
    CHECK(sa->protection.replay);
    CHECK(sa->protection.encryption == suite.cipher->name);
    CHECK(sa->protection.key_bits == suite.key_bits);
    CHECK(sa->protection.integrity == (suite.integrity != nullptr ? suite.integrity->name : ""));
    // The key is in there whole.
    CHECK_FALSE(std::ranges::search(message, keys->encryption.octets()).empty());
  }
}

TEST_CASE("A pair that makes no sense never reaches the kernel") {
  ManualSa sa = Manual("10.9.0.1", "10.9.0.2", "aes-gcm-16");
  sa.reqid = 0;
  CHECK(InstallPair(kSecret, sa).error().reason == Reason::kBadRequest);
  CHECK(InstallPair(kSecret, Manual("10.9.0.1", "fd00::1", "aes-gcm-16")).error().reason ==
        Reason::kBadRequest);
  CHECK(InstallPair(kSecret, Manual("10.9.0.1", "10.9.0.2", "rot13")).error().reason ==
        Reason::kBadRequest);
}

// Where the kernel has ESP both SAs come and go; where it has none nothing may be left behind.
TEST_CASE("Both SAs or none") {
  TestNetns netns;
  Result<std::unique_ptr<RealKernel>> kernel = RealKernel::Open();
  REQUIRE(kernel);
  for (const ManualSa& sa :
       {Manual("10.9.0.1", "10.9.0.2", "aes-gcm-16"), Manual("fd00::1", "fd00::2", kCbc)}) {
    const Result<void> installed = InstallPair(kSecret, sa);
    const Result<std::vector<Sa>> sad = (*kernel)->DumpSad();
    REQUIRE(sad);
    if (!installed) {
      WARN("no ESP here: " << installed.error().ToString());
      CHECK(installed.error().reason == Reason::kKernelRefused);
      CHECK(sad->empty());
      CHECK(DeletePair(kSecret, sa).error().reason == Reason::kNoSa);
      continue;
    }
    REQUIRE(sad->size() == 2);
    for (const Sa& each : *sad) {
      CHECK_FALSE(each.larval);
      CHECK(each.reqid == 7);
      CHECK(each.protection.replay);
      CHECK(each.protection.encryption == ParseSaSuite(sa.suite)->cipher->name);
      CHECK(each.protection.key_bits == ParseSaSuite(sa.suite)->key_bits);
      CHECK(each.Carries(kProtocolTcp, {each.source, 1}, {each.key.destination, 2}));
    }
    CHECK(sad->at(0).source == sad->at(1).key.destination);
    CHECK(InstallPair(kSecret, sa).error().reason == Reason::kConflictSa);
    CHECK((*kernel)->DumpSad()->size() == 2);
    std::vector<KernelEvent> events = *(*kernel)->ReadEvents();
    CHECK(std::ranges::count(events, KernelEvent::Kind::kSaAdded, &KernelEvent::kind) == 2);
    CHECK(DeletePair(kSecret, sa));
    CHECK((*kernel)->DumpSad()->empty());
    events = *(*kernel)->ReadEvents();
    REQUIRE(events.size() == 2);
    for (const KernelEvent& event : events) {
      CHECK(event.kind == KernelEvent::Kind::kSaDeleted);
      CHECK(std::ranges::find(*sad, event.sa) != sad->end());
    }
    CHECK(DeletePair(kSecret, sa).error().reason == Reason::kNoSa);
  }
}

}  // namespace
}  // namespace latchkey::broker
