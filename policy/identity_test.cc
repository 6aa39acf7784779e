// Names of peers: kinds, wildcards, faults.
#include "policy/identity.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace latchkey::policy {
namespace {

struct Pair {
  const char* pattern;
  const char* id;
};

TEST_CASE("Names that match") {
  for (const Pair& pair : std::vector<Pair>{
           {"alice", "alice"},
           {"alice", "ALICE"},
           {"db1.example", "DB1.Example"},
           {"fqdn:db1.example", "db1.example"},
           {"db1.example", "fqdn:db1.example"},
           {"fqdn:db1.example", "fqdn:db1.example"},
           {"*.db.example", "a.db.example"},
           {"*.db.example", "A.DB.EXAMPLE"},
           {"fqdn:*.db.example", "x.db.example"},
           {"bob@example", "BOB@Example"},
           {"email:bob@example", "bob@example"},
           {"C=CH, O=x, CN=moon", "C=CH, O=x, CN=moon"},
           {"dn:CN=moon", "CN=moon"},
           {"CN=*.example", "CN=*.example"},
           {"10.9.0.1", "10.9.0.1"},
           {"ip:10.9.0.1", "10.9.0.1"},
           {"10.9.0.1", "ip:10.9.0.1"},
           {"fd00::1", "fd00:0:0::1"},
           {"ip:10.9.0.1", "::ffff:10.9.0.1"},
           {"keyid:0x1234", "keyid:0x1234"},
       }) {
    INFO(pair.pattern << " ~ " << pair.id);
    CHECK(IdMatches(pair.pattern, pair.id));
  }
}

TEST_CASE("Names that do not match") {
  for (const Pair& pair : std::vector<Pair>{
           {"alice", "alic"},
           {"alice", "alice."},
           {"alice", ""},
           {"", ""},
           {"", "alice"},
           {"fqdn:", "fqdn:"},
           {"*", "db1.example"},
           {"*", "*"},
           {"*", "10.9.0.1"},
           {"*.", "alice."},
           {"*.db.example", "db.example"},
           {"*.db.example", ".db.example"},
           {"*.db.example", "a.b.db.example"},
           {"*.db.example", "a.db.example.org"},
           {"*.db.example", "aXdb.example"},
           {"*.db.example", "*.db.example"},
           {"a*.db.example", "ab.db.example"},
           {"db.*.example", "db.a.example"},
           {"*.*.example", "a.b.example"},
           {"db1.example", "*.example"},
           {"*@example", "bob@example"},
           {"*.example", "bob@x.example"},
           {"CN=moon", "CN=Moon"},
           {"CN=moon", "C=CH, CN=moon"},
           {"CN=*", "CN=moon"},
           {"10.9.0.1", "10.9.0.2"},
           {"*.9.0.1", "10.9.0.1"},
           {"fqdn:*.9.0.1", "10.9.0.1"},
           {"ip:alice", "ip:alice"},
           // Kinds: what says one thing is not the other.
           {"fqdn:10.9.0.1", "ip:10.9.0.1"},
           {"fqdn:10.9.0.1", "10.9.0.1"},
           {"fqdn:alice", "keyid:alice"},
           {"alice", "keyid:alice"},
           {"keyid:alice", "alice"},
           {"dn:CN=moon", "keyid:CN=moon"},
           {"email:bob@example", "fqdn:bob@example"},
           {"keyid:alice", "keyid:ALICE"},
       }) {
    INFO(pair.pattern << " ~ " << pair.id);
    CHECK_FALSE(IdMatches(pair.pattern, pair.id));
  }
}

TEST_CASE("A star alone is any name of one label") {
  CHECK(IdMatches("*", "alice"));
  CHECK(IdMatches("fqdn:*", "alice"));
}

TEST_CASE("Names without a fault") {
  for (const char* id :
       {"alice", "*", "*.db.example", "fqdn:*.db.example", "bob@example", "CN=*.example",
        "keyid:a*", "keyid:\x01\t", "ip:fd00::1", "10.9.0.1", "dn:C=CH"}) {
    INFO(id);
    CHECK(IdFault(id, true).empty());
  }
  CHECK(IdFault(std::string(255, 'a'), true).empty());
}

TEST_CASE("Names with a fault") {
  for (const char* id : {"", "fqdn:", "email:", "keyid:", "ip:alice", "ip:10.0.0.0/8", "**", "*.",
                         "a*.example", "a.*.example", "*.*.example", "*@example"}) {
    INFO(id);
    CHECK(IdFault(id, true).starts_with("expected "));
  }
  CHECK_FALSE(IdFault(std::string(256, 'a'), true).empty());
  CHECK_FALSE(IdFault(std::string("a\0b", 3), true).empty());
}

TEST_CASE("Where a name is somebody's own it has no wildcard") {
  CHECK(IdFault("*.db.example", false) == "expected a name without \"*\"");
  CHECK(IdFault("db.example", false).empty());
}

}  // namespace
}  // namespace latchkey::policy
