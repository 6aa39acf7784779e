// Protections as text and in comparisons.
#include "policy/model/protection.h"

#include <catch2/catch.hpp>
#include <vector>

namespace latchkey {
namespace {

const Protection kGcm{SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};

TEST_CASE("A protection as text") {
  struct Row {
    Protection protection;
    const char* text;
  };
  const std::vector<Row> rows = {
      {kGcm, "esp transport aes-gcm-16:256 replay"},
      {{SaProtocol::kEsp, Mode::kTunnel, "aes-cbc", "hmac-sha2-256", 128, false, true},
       "esp tunnel aes-cbc:128 hmac-sha2-256 no-replay esn"},
      {{SaProtocol::kEsp, Mode::kBeet, "null", "hmac-sha1", 0, true, false},
       "esp beet null:0 hmac-sha1 replay"},
      {{SaProtocol::kAh, Mode::kUnknown, "", "hmac-sha1", 0, true, false},
       "ah unknown-mode hmac-sha1 replay"},
      {Protection{}, "none"},
  };
  for (const Row& row : rows) CHECK(row.protection.ToString() == row.text);
}

TEST_CASE("Every parameter counts when two protections are compared") {
  const auto differs = [](auto change) {
    Protection other = kGcm;
    change(other);
    return other != kGcm;
  };
  CHECK(Protection(kGcm) == kGcm);
  CHECK(differs([](Protection& p) { p.protocol = SaProtocol::kAh; }));
  CHECK(differs([](Protection& p) { p.mode = Mode::kTunnel; }));
  CHECK(differs([](Protection& p) { p.encryption = "aes-gcm-12"; }));
  CHECK(differs([](Protection& p) { p.integrity = "hmac-sha1"; }));
  CHECK(differs([](Protection& p) { p.key_bits = 128; }));
  CHECK(differs([](Protection& p) { p.replay = false; }));
  CHECK(differs([](Protection& p) { p.esn = true; }));
}

TEST_CASE("Identities differ by peer, own name or authentication") {
  const Identity alice{"alice", "bob", "pubkey"};
  CHECK(alice == Identity{"alice", "bob", "pubkey"});
  CHECK(alice != Identity{"mallory", "bob", "pubkey"});
  CHECK(alice != Identity{"alice", "carol", "pubkey"});
  CHECK(alice != Identity{"alice", "bob", "psk"});
}

}  // namespace
}  // namespace latchkey
