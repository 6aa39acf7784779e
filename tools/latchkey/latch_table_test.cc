#include "tools/latchkey/latch_table.h"

#include <catch2/catch.hpp>
#include <sstream>

namespace latchkey::tool {
namespace {

std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

Latch Established() {
  Latch latch;
  latch.id = 7;
  latch.state = State::kEstablished;
  latch.flow.local = {*Address::Parse("10.9.0.1"), 40000};
  latch.flow.remote = {*Address::Parse("fd00::2"), 443};
  latch.identity = {"b.example", "a.example", "manual"};
  latch.protection = {
      SaProtocol::kEsp, Mode::kTransport, "aes-cbc", "hmac-sha2-256", 256, true, false};
  latch.program = "/usr/bin/curl";
  latch.pid = 1234;
  return latch;
}

TEST_CASE("The table lines up") {
  Latch listener;
  listener.id = 10;
  listener.state = State::kListener;
  listener.flow.local = {*Address::Parse("::"), 80};
  listener.program = "/usr/sbin/nginx";
  listener.pid = 99;
  const auto lines = Lines(ListTable({Established(), listener}));
  REQUIRE(lines.size() == 3);
  CHECK(lines[0] ==
        "ID  STATE        PROTO  LOCAL           REMOTE         PEER       "
        "PROTECTION                     PROGRAM          PID");
  CHECK(lines[1] ==
        "7   ESTABLISHED  tcp    10.9.0.1:40000  [fd00::2]:443  b.example  "
        "esp/aes-cbc:256/hmac-sha2-256  /usr/bin/curl    1234");
  CHECK(lines[2] ==
        "10  LISTENER     tcp    [::]:80         *              -          "
        "-                              /usr/sbin/nginx  99");
}

TEST_CASE("An empty list is a heading alone") { CHECK(Lines(ListTable({})).size() == 1); }

TEST_CASE("Nothing from the wire reaches the terminal as a command") {
  CHECK(Printable("plain, with blanks") == "plain, with blanks");
  CHECK(Printable("\x1b[2J") == "\\x1b[2J");
  CHECK(Printable("a\nb\tc\rd\x7f") == "a\\nb\\tc\\x0dd\\x7f");
  CHECK(Printable("\\n") == "\\\\n");
  CHECK(Printable("gr\xc3\xbc\xc3\x9f") == "gr\xc3\xbc\xc3\x9f");
  CHECK(Printable("\xf0\x9f\x94\x92") == "\xf0\x9f\x94\x92");
  CHECK(Printable("\xc2\x9b") == "\\xc2\\x9b");           // C1: CSI in one character
  CHECK(Printable("\xe2\x80\xae") == "\\xe2\\x80\\xae");  // right-to-left override
  CHECK(Printable("\xff\xc3") == "\\xff\\xc3");
  CHECK(Printable("\xc0\xaf") == "\\xc0\\xaf");           // not the shortest form
  CHECK(Printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // a surrogate
  CHECK(Printable(std::string("\0", 1)) == "\\x00");

  Latch latch = Established();
  latch.identity.peer_id = "evil\n99  ESTABLISHED";
  CHECK(Lines(ListTable({latch})).size() == 2);
  CHECK(ShowText(latch).find("peer_id: evil\\n99") != std::string::npos);
}

TEST_CASE("Show has a line for each field") {
  Latch latch = Established();
  latch.reason = wire::Reason::kConflictSa;
  latch.state = State::kBroken;
  latch.spi_in = 0xc0de;
  const std::string text = ShowText(latch);
  for (const char* line :
       {"id: 7\n", "state: BROKEN\n", "meaning: Cannot be kept, for the reason shown;",
        "reason: conflict-sa\n", "remote: [fd00::2]:443\n", "encryption: aes-cbc\n",
        "integrity: hmac-sha2-256\n", "key_bits: 256\n", "replay: yes\n", "esn: no\n",
        "spi_in: 0x0000c0de\n", "spi_out: -\n", "pin: reqid\n"}) {
    CAPTURE(line);
    CHECK(text.find(line) != std::string::npos);
  }
}

TEST_CASE("Show tells how a break ends, and what lies outside the SA") {
  Latch latch = Established();
  std::string text = ShowText(latch);
  const auto says = [&text](const char* line) {
    CAPTURE(line);
    CHECK(text.find(line) != std::string::npos);
  };
  for (const char* line :
       {"disposition: reset\n", "qop: exact\n", "offload: none\n", "outer: -\n", "nat: -\n"}) {
    says(line);
  }
  latch.suspends = true;
  latch.offload = Offload::kPacket;
  latch.peering.local = {*Address::Parse("10.9.0.1"), 500};
  latch.peering.remote = {*Address::Parse("fd00::2"), 500};
  text = ShowText(latch);
  for (const char* line : {"disposition: suspend\n", "offload: packet\n",
                           "outer: 10.9.0.1:500 and [fd00::2]:500\n", "nat: no\n"}) {
    says(line);
  }
  latch.peering.nat_local = true;
  text = ShowText(latch);
  says("nat: local\n");
  latch.peering.nat_remote = true;
  text = ShowText(latch);
  says("nat: local and remote\n");
}

}  // namespace
}  // namespace latchkey::tool
