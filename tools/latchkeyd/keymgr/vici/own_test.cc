#include "tools/latchkeyd/keymgr/vici/own.h"

#include <catch2/catch.hpp>

#include "policy/decide.h"

namespace latchkey::broker::vici {
namespace {

struct OwnFixture {
  ConnConfig conn;
  ChildConfig child;
  Wanted wanted;

  OwnFixture() {
    conn.name = "to-alice";
    conn.version = "IKEv2";
    conn.rekey_time = "14400";
    conn.local = {{"pubkey", "me.example", "", "", true, ""}};
    conn.remote = {{"pubkey", "*.example", "", "", false, ""}};
    child.name = "db";
    child.mode = Mode::kTransport;
    wanted.flow.local = {*Address::Parse("10.9.0.2"), 40001};
    wanted.flow.remote = {*Address::Parse("10.9.0.1"), 5432};
    Suites({"aes-gcm-16"});
  }
  void Suites(std::vector<std::string> encryption, uint16_t bits = 128,
              std::vector<std::string> integrity = {}) {
    ProtectionSpec spec;
    spec.encryption = std::move(encryption);
    spec.integrity = std::move(integrity);
    spec.min_key_bits = bits;
    wanted.algorithms = policy::Accepted(spec);
  }
  std::string Why() const {
    const Result<Section> made = OwnConn(conn, child, wanted, "x", 7);
    REQUIRE_FALSE(made);
    CHECK(made.error().reason == Reason::kNoChild);
    return made.error().value;
  }
};

constexpr const char* kGroups = "-x25519-ecp256-modp2048-modpnone";

TEST_CASE_METHOD(OwnFixture, "A name says which flow it is of") {
  const std::string name = OwnName(7, wanted.flow);
  CHECK(name == "latchkey-7-10.9.0.2:40001-10.9.0.1:5432");
  CHECK(FlowOfOwn(name) == FlowText(wanted.flow));
  wanted.flow.local.address = *Address::Parse("fd00::2");
  CHECK(FlowOfOwn(OwnName(0, wanted.flow)) == FlowText(wanted.flow));
  for (const char* other : {"to-alice", "latchkey-", "latchkey-x", "latchkey-7", "latchkey-a-b"}) {
    CHECK_FALSE(FlowOfOwn(other));
  }
}

TEST_CASE_METHOD(OwnFixture, "The copy is of the flow alone, with the peer that was configured") {
  const Result<Section> made = OwnConn(conn, child, wanted, "x", 7);
  REQUIRE(made);
  const Section& copy = *made->Sub("x");
  CHECK(copy.Value("version") == "2");
  CHECK(copy.Value("unique") == "never");
  CHECK(copy.Value("rekey_time") == "14400s");
  CHECK(copy.Items("local_addrs") == List{"10.9.0.2"});
  CHECK(copy.Items("remote_addrs") == List{"10.9.0.1"});
  CHECK(copy.Sub("local")->Value("auth") == "pubkey");
  CHECK(copy.Sub("local")->Value("id") == "me.example");
  CHECK(copy.Sub("remote")->Value("auth") == "pubkey");
  CHECK(copy.Sub("remote")->Value("id") == "*.example");
  const Section& own = *copy.Sub("children")->Sub("x");
  CHECK(own.Value("mode") == "transport");
  CHECK(own.Items("local_ts") == List{"10.9.0.2/32[6/40001]"});
  CHECK(own.Items("remote_ts") == List{"10.9.0.1/32[6/5432]"});
  CHECK(own.Items("esp_proposals").size() == 3);
  const Result<Section> next = OwnConn(conn, child, wanted, "x", 8);
  CHECK(next->Sub("x")->Value("over_time") != copy.Value("over_time"));
}

TEST_CASE_METHOD(OwnFixture, "Suites in charon's words, the longest keys first") {
  Suites({"aes-gcm-16"});
  const std::string groups = kGroups;
  CHECK(OwnProposals(wanted.algorithms, false) ==
        List{"aes256gcm16" + groups, "aes192gcm16" + groups, "aes128gcm16" + groups});
  Suites({"aes-cbc"}, 256, {"hmac-sha2-256"});
  CHECK(OwnProposals(wanted.algorithms, true) == List{"aes256-sha256" + groups + "-esn"});
  Suites({"chacha20-poly1305"}, 256);
  CHECK(OwnProposals(wanted.algorithms, false) == List{"chacha20poly1305" + groups});
  Suites({});
  CHECK(OwnProposals(wanted.algorithms, false).size() > 10);
  CHECK(OwnProposals({}, false).empty());
}

TEST_CASE_METHOD(OwnFixture, "What cannot be copied whole is not copied") {
  SECTION("EAP") { conn.remote[0].auth = "eap"; }
  SECTION("rounds") { conn.remote.push_back(conn.remote[0]); }
  SECTION("no local id") { conn.local[0].id.clear(); }
  SECTION("CAs") { conn.remote[0].bound = "cacerts"; }
  SECTION("the peer's certificate") { conn.remote[0].certs = true; }
  SECTION("IKEv1") { conn.version = "IKEv1"; }
  SECTION("PPK") { conn.has_ppk = true; }
  SECTION("tunnel") { child.mode = Mode::kTunnel; }
  SECTION("no suite") { wanted.algorithms.reset(); }
  SECTION("no port") { wanted.flow.local.port = 0; }
  CHECK(Why().starts_with("not after connection \"to-alice\": "));
}

TEST_CASE_METHOD(OwnFixture, "Revocation and the identity of a CA are asked for as configured") {
  conn.remote[0].revocation = "GOOD";
  conn.remote[0].ca_id = "CN=ca";
  const Result<Section> made = OwnConn(conn, child, wanted, "x", 7);
  CHECK(made->Sub("x")->Sub("remote")->Value("revocation") == "strict");
  CHECK(made->Sub("x")->Sub("remote")->Value("ca_id") == "CN=ca");
}

}  // namespace
}  // namespace latchkey::broker::vici
