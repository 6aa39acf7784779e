// Who is behind manually keyed SAs.
#include "policy/pad.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace latchkey::policy {
namespace {

Address A(const char* text) { return Address::Parse(text).value(); }

Pad Good(const std::string& text) {
  auto pad = ParsePad(text, "pad.toml");
  if (!pad) FAIL(pad.error().front().ToString());
  return *std::move(pad);
}

const Address kMe = Address::Parse("10.9.0.2").value();
const Address kPeer = Address::Parse("10.9.0.1").value();

TEST_CASE("Entries are read") {
  const Pad pad = Good(R"(latchkey = 1
[[sa]]
reqid = 7
remote = ["10.9.0.1", "fd00::1"]
id = "alice"
local_id = "bob"
auth = "manual"
[[sa]]
spi = "0x101"
dst = "10.9.0.2"
id = "carol"
)");
  REQUIRE(pad.entries.size() == 2);
  CHECK(pad.entries[0].reqid == 7);
  CHECK(pad.entries[0].spi == 0);
  CHECK(pad.entries[0].remote == std::vector<Address>{A("10.9.0.1"), A("fd00::1")});
  CHECK(pad.entries[0].identity == Identity{"alice", "bob", "manual"});
  CHECK(pad.entries[1].reqid == 0);
  CHECK(pad.entries[1].spi == 0x101);
  CHECK(pad.entries[1].spi_destination == A("10.9.0.2"));
  CHECK(pad.entries[1].remote.empty());
  CHECK(pad.entries[1].identity == Identity{"carol", "", "manual"});
  CHECK(Good("").entries.empty());
}

TEST_CASE("An SA is found by its SPI first, then by its reqid") {
  const Pad pad = Good(R"(
[[sa]]
reqid = 7
id = "by-reqid"
[[sa]]
spi = "0x101"
dst = "10.9.0.2"
id = "by-spi"
)");
  const auto who = [&pad](uint32_t reqid, uint32_t spi, const Address& destination) {
    const PadEntry* entry = pad.Find(reqid, spi, destination, kPeer);
    return entry == nullptr ? std::string("nobody") : entry->identity.peer_id;
  };
  CHECK(who(7, 0x101, kMe) == "by-spi");
  CHECK(who(8, 0x101, kMe) == "by-spi");
  CHECK(who(7, 0x102, kMe) == "by-reqid");
  CHECK(who(7, 0x101, kPeer) == "by-reqid");  // the SPI is that of another destination
  CHECK(who(8, 0x102, kMe) == "nobody");
  // 0 is no name: an entry by SPI has no reqid, and the other way round.
  CHECK(who(0, 0, kMe) == "nobody");
  CHECK(who(0, 0x102, kMe) == "nobody");
}

TEST_CASE("An entry with addresses speaks only of those") {
  const Pad pad = Good("[[sa]]\nreqid = 7\nremote = [\"10.9.0.1\"]\nid = \"alice\"\n");
  CHECK(pad.Find(7, 0x101, kMe, kPeer) != nullptr);
  CHECK(pad.Find(7, 0x101, kMe, A("10.9.0.3")) == nullptr);
  CHECK(pad.Find(7, 0x101, kMe, Address{}) == nullptr);
}

TEST_CASE("Entries that disagree name nobody") {
  const std::string alice = "[[sa]]\nreqid = 7\nid = \"alice\"\n";
  const std::string spi = "[[sa]]\nspi = \"0x101\"\ndst = \"10.9.0.2\"\nid = ";
  const auto found = [](const std::string& text) {
    return Good(text).Find(7, 0x101, kMe, kPeer) != nullptr;
  };
  CHECK(found(alice));
  CHECK(found(alice + alice));
  CHECK_FALSE(found(alice + "[[sa]]\nreqid = 7\nid = \"mallory\"\n"));
  CHECK_FALSE(found(alice + "[[sa]]\nreqid = 7\nid = \"alice\"\nlocal_id = \"x\"\n"));
  CHECK(found(alice + "[[sa]]\nreqid = 7\nid = \"mallory\"\nremote = [\"10.9.0.3\"]\n"));
  // Two SPI entries that disagree are not saved by a reqid.
  CHECK(found(spi + "\"a\"\n" + alice));
  CHECK_FALSE(found(spi + "\"a\"\n" + spi + "\"b\"\n" + alice));
}

TEST_CASE("Errors say where and what") {
  struct Row {
    std::string text;
    std::vector<std::string> errors;
  };
  const std::string sa = "[[sa]]\nid = \"alice\"\n";
  const std::string octets = ": expected 1 to 255 octets without a NUL";
  const std::string spi = ": expected a string like \"0x101\", at least 0x100";
  const std::vector<Row> rows = {
      {"latchkey = 2", {"p:1:12: latchkey is 2: expected 1"}},
      {"sas = 1", {"p:1:1: unknown key \"sas\" in the file: did you mean \"sa\"?"}},
      {"sa = 1", {"p:1:6: sa is 1: expected tables, [[sa]]"}},
      {"[[sa]]\nreqid = 7", {"p:1:1: no key \"id\" in [[sa]]: expected the peer's name"}},
      {sa, {"p:1:1: [[sa]] has neither spi nor reqid: expected one"}},
      {sa + "reqid = 7\nspi = \"0x101\"\ndst = \"10.9.0.1\"",
       {"p:1:1: [[sa]] has both spi and reqid: expected one"}},
      {sa + "reqid = 0", {"p:3:9: reqid is 0: expected an integer from 1 to 4294967295"}},
      {sa + "reqid = 7\ndst = \"10.9.0.1\"",
       {"p:4:7: dst goes with spi: expected both or neither"}},
      {sa + "spi = \"0x101\"",
       {"p:1:1: no key \"dst\" in [[sa]] with an spi: expected the SA's destination, an address"}},
      {sa + "spi = \"0x101\"\ndst = \"x\"", {"p:4:7: dst is \"x\": expected an address"}},
      {sa + "spi = \"0xff\"\ndst = \"10.9.0.1\"", {"p:3:7: spi is \"0xff\"" + spi}},
      {sa + "spi = \"257\"\ndst = \"10.9.0.1\"", {"p:3:7: spi is \"257\"" + spi}},
      {sa + "spi = \"0x100000000\"\ndst = \"10.9.0.1\"", {"p:3:7: spi is \"0x100000000\"" + spi}},
      {sa + "spi = \"0x101g\"\ndst = \"10.9.0.1\"", {"p:3:7: spi is \"0x101g\"" + spi}},
      {sa + "spi = \"0x-101\"\ndst = \"10.9.0.1\"", {"p:3:7: spi is \"0x-101\"" + spi}},
      {sa + "reqid = 7\nremote = \"10.9.0.1\"",
       {"p:4:10: remote is \"10.9.0.1\": expected a list, [\"10.9.0.1\"]"}},
      {sa + "reqid = 7\nremote = [\"10.9.0.0/24\", 1]",
       {"p:4:11: remote holds \"10.9.0.0/24\": expected an address",
        "p:4:26: remote holds 1: expected an address"}},
      {sa + "reqid = 7\nremote = []", {"p:4:10: remote has 0 elements: expected 1 to 64"}},
      {sa + "reqid = 7\nauth = \"psk\"", {"p:4:8: auth is \"psk\": expected \"manual\""}},
      {sa + "reqid = 7\nlocal_id = \"\"", {"p:4:12: local_id is \"\"" + octets}},
      {"[[sa]]\nreqid = 7\nid = \"a\\u0000b\"", {"p:3:6: id is \"a\\x00b\"" + octets}},
      {"[[sa]]\nreqid = 7\nid = \"*.example\"",
       {"p:3:6: id is \"*.example\": expected a name without \"*\""}},
      {"[[sa]]\nreqid = 7\nid = 5\nreqids = 1",
       {"p:3:6: id is 5: expected a string",
        "p:4:1: unknown key \"reqids\" in [[sa]]: did you mean \"reqid\"?"}},
  };
  for (const Row& row : rows) {
    INFO(row.text);
    const auto pad = ParsePad(row.text, "p");
    std::vector<std::string> errors;
    if (!pad) {
      for (const ParseError& error : pad.error()) errors.push_back(error.ToString());
    }
    CHECK(errors == row.errors);
  }
}

}  // namespace
}  // namespace latchkey::policy
