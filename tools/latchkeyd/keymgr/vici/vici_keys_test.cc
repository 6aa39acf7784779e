// Whose public key it is: only where nothing else it could be.
#include <catch2/catch.hpp>
#include <string>

#include "tools/latchkeyd/keymgr/vici/vici_fixture.h"

namespace latchkey::broker::vici {
namespace {

std::string Field(char tag, const std::string& content) {
  return std::string(1, tag) + static_cast<char>(content.size()) + content;
}

// The least that is a certificate; `serial` makes two of one key.
std::string Certificate(const std::string& key, const std::string& serial = "1") {
  const std::string empty = Field('\x30', "");
  const std::string fields =
      Field('\x02', serial) + empty + empty + empty + empty + Field('\x30', key);
  return Field('\x30', Field('\x30', fields) + empty + Field('\x03', ""));
}

struct KeysFixture : ViciFixture {
  const Identity identity{"alice.example", "me.example", "pubkey"};

  KeysFixture() {
    charon.sas = {FakeIke{}};
    FakeConn conn;
    charon.conns = {conn};
    charon.certs = {{"alice.example", "X509", "NONE", false, Certificate("alice")},
                    {"me.example", "X509", "NONE", true, Certificate("me")}};
  }
  // The keys, or "none" twice.
  std::pair<std::string, std::string> Ask(const Identity& who) {
    Take();
    const uint64_t ticket = keys->AskKeys(who);
    if (ticket == 0) return {"none", "none"};
    Spin();
    const KeyEvent event = Only(KeyEvent::Kind::kKeys);
    CHECK(event.ticket == ticket);
    return {event.peer_key, event.own_key};
  }
  std::pair<std::string, std::string> Ask() { return Ask(identity); }
};

TEST_CASE_METHOD(KeysFixture, "Both keys, where one certificate carries each id") {
  Begin();
  CHECK(Ask() == std::pair(Field('\x30', "alice"), Field('\x30', "me")));
  CHECK(Ask() == std::pair(Field('\x30', "alice"), Field('\x30', "me")));
}

TEST_CASE_METHOD(KeysFixture,
                 "Another certificate of the id: no doubt only where the key is the same") {
  std::string key = "alice";
  SECTION("a new one of the same key") {}
  SECTION("of another key") { key = "mallory"; }
  charon.certs.push_back({"alice.example", "X509", "NONE", false, Certificate(key, "2")});
  Begin();
  CHECK(Ask().first == (key == "alice" ? Field('\x30', "alice") : ""));
  CHECK(Ask().second == Field('\x30', "me"));
}

TEST_CASE_METHOD(KeysFixture, "What is no end-entity certificate, and what is no certificate") {
  SECTION("a CA of that name is not the peer") {
    charon.certs.push_back({"alice.example", "X509", "CA", false, Certificate("ca")});
    Begin();
    CHECK(Ask().first == Field('\x30', "alice"));
  }
  SECTION("a revocation list") {
    charon.certs.push_back({"alice.example", "X509_CRL", "", false, "x"});
    Begin();
    CHECK(Ask().first == Field('\x30', "alice"));
  }
  SECTION("a bare key") {
    charon.certs.push_back({"alice.example", "PUBKEY", "", false, "x"});
    Begin();
    CHECK(Ask().first == "");
  }
  SECTION("octets that are no certificate") {
    charon.certs[0].data = "x";
    Begin();
    CHECK(Ask().first == "");
  }
  SECTION("nothing at all") {
    charon.certs.clear();
    Begin();
    CHECK(Ask() == std::pair<std::string, std::string>("", ""));
  }
  SECTION("our own without its private key") {
    charon.certs[1].has_key = false;
    Begin();
    CHECK(Ask().second == "");
  }
}

TEST_CASE_METHOD(KeysFixture, "Only where both prove themselves by a public key") {
  SECTION("the peer does not") {
    Begin();
    CHECK(Ask({"alice.example", "me.example", "psk"}).first == "none");
    CHECK(Ask({"alice.example", "me.example", "eap"}).first == "none");
    CHECK(Ask({"alice.example", "me.example", ""}).first == "none");
  }
  SECTION("we do not") {
    charon.conns[0].local_class = "pre-shared key";
    Begin();
    CHECK(Ask().first == "none");
  }
  SECTION("a connection between the same two by other means") {
    charon.sas.push_back(charon.sas[0]);
    charon.sas[1].id = 2;
    charon.sas[1].spis = "bb";
    charon.sas[1].name = "other";
    charon.sas[1].children[0].id = 2;
    FakeConn other;
    other.name = "other";
    other.local_class = "pre-shared key";
    charon.conns.push_back(other);
    Begin();
    CHECK(Ask().first == "none");
  }
  SECTION("nobody by that name") {
    Begin();
    CHECK(Ask({"bob.example", "me.example", "pubkey"}).first == "none");
  }
}

TEST_CASE_METHOD(KeysFixture, "A charon that is gone, or goes, has no keys to tell") {
  Begin();
  charon.mute = true;
  const uint64_t ticket = keys->AskKeys(identity);
  CHECK(ticket != 0);
  Spin();
  CHECK(Count(KeyEvent::Kind::kKeys) == 0);
  charon.Stop();
  Spin();
  const KeyEvent event = Only(KeyEvent::Kind::kKeys);
  CHECK(event.ticket == ticket);
  CHECK(event.peer_key.empty());
  CHECK(event.own_key.empty());
  CHECK(keys->AskKeys(identity) == 0);
  charon.mute = false;
  charon.Start();
  Pass(5'000);
  CHECK(Ask().first == Field('\x30', "alice"));
}

}  // namespace
}  // namespace latchkey::broker::vici
