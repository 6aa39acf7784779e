#include "tools/latchkey/latch_json.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

namespace latchkey::tool {
namespace {

using Json = nlohmann::json;

Latch Established() {
  Latch latch;
  latch.id = 7;
  latch.state = State::kEstablished;
  latch.flow.local = {*Address::Parse("10.9.0.1"), 40000};
  latch.flow.remote = {*Address::Parse("fd00::2"), 443};
  latch.identity = {"b.example", "a.example", "manual"};
  latch.protection = {SaProtocol::kEsp, Mode::kTransport, "aes-gcm-16", "", 256, true, false};
  latch.pin = Pin::kReqid;
  latch.reqid = 42;
  latch.spi_in = 0xc0de;
  latch.spi_out = 0xffffffff;
  latch.program = "/usr/bin/curl";
  latch.pid = 1234;
  latch.uid = 1000;
  latch.policy = "web";
  latch.rule = "server";
  latch.since = 1700000000;
  return latch;
}

TEST_CASE("An established latch has every field") {
  const Json document = Json::parse(ShowJson(Established()));
  CHECK(document == Json::parse(R"({
    "schema": 1,
    "latch": {
      "id": 7, "state": "ESTABLISHED", "protocol": "tcp",
      "local": {"address": "10.9.0.1", "port": 40000},
      "remote": {"address": "fd00::2", "port": 443},
      "peer_id": "b.example", "local_id": "a.example", "auth": "manual",
      "protection": {"protocol": "esp", "mode": "transport", "encryption": "aes-gcm-16",
                     "integrity": null, "key_bits": 256, "replay": true, "esn": false,
                     "qop": "exact"},
      "reqid": 42, "spi_in": "0x0000c0de", "spi_out": "0xffffffff", "pin": "reqid",
      "program": "/usr/bin/curl", "pid": 1234, "uid": 1000, "policy": "web", "rule": "server",
      "since": "2023-11-14T22:13:20Z", "reason": null, "disposition": "reset", "implicit": false,
      "clear": false, "offload": "none", "outer": null, "nat": null, "listener": null,
      "dropped": null
    }
  })"));
}

TEST_CASE("A peer of an unconnected UDP socket names that, which says what it dropped") {
  Latch peer = Established();
  peer.flow.protocol = kProtocolUdp;
  peer.flow.remote.port = 0;
  peer.listener = 3;
  peer.dropped = 9;  // not a peer's
  Json shown = Json::parse(ShowJson(peer))["latch"];
  CHECK(shown["listener"] == 3);
  CHECK(shown["dropped"].is_null());
  CHECK(shown["remote"] == Json::parse(R"({"address": "fd00::2", "port": null})"));
  Latch socket;
  socket.id = 3;
  socket.state = State::kListener;
  socket.flow.protocol = kProtocolUdp;
  socket.dropped = 9;
  shown = Json::parse(ShowJson(socket))["latch"];
  CHECK(shown["listener"].is_null());
  CHECK(shown["dropped"] == 9);
  socket.flow.protocol = kProtocolTcp;
  CHECK(Json::parse(ShowJson(socket))["latch"]["dropped"].is_null());
}

TEST_CASE("What is absent is null, never left out") {
  Latch latch;
  latch.id = 1;
  const Json empty = Json::parse(ShowJson(latch))["latch"];
  const Json full = Json::parse(ShowJson(Established()))["latch"];
  for (const auto& [key, value] : full.items()) {
    CAPTURE(key);
    CHECK(empty.contains(key));
  }
  CHECK(empty.size() == full.size());
  for (const char* key :
       {"local", "remote", "peer_id", "local_id", "auth", "protection", "reqid", "spi_in",
        "spi_out", "pin", "program", "pid", "policy", "rule", "since", "reason", "offload"}) {
    CAPTURE(key);
    CHECK(empty[key].is_null());
  }
}

TEST_CASE("A listener has no remote; a broken latch has its reason") {
  Latch latch = Established();
  latch.state = State::kListener;
  CHECK(Json::parse(ShowJson(latch))["latch"]["remote"].is_null());
  latch.state = State::kBroken;
  latch.reason = wire::Reason::kConflictSa;
  CHECK(Json::parse(ShowJson(latch))["latch"]["reason"] == "conflict-sa");
}

TEST_CASE("What the key manager and the rule say of a latch") {
  Latch latch = Established();
  latch.suspends = true;
  latch.offload = Offload::kCrypto;
  latch.peering.local = {*Address::Parse("10.9.0.1"), 4500};
  latch.peering.remote = {*Address::Parse("203.0.113.7"), 1024};
  latch.peering.nat_remote = true;
  Json shown = Json::parse(ShowJson(latch))["latch"];
  CHECK(shown["disposition"] == "suspend");
  CHECK(shown["offload"] == "crypto");
  CHECK(shown["outer"] == Json::parse(R"({"local": {"address": "10.9.0.1", "port": 4500},
                                          "remote": {"address": "203.0.113.7", "port": 1024}})"));
  CHECK(shown["nat"] == Json::parse(R"({"local": false, "remote": true})"));
  latch.offload = Offload::kPacket;
  latch.peering = {};
  shown = Json::parse(ShowJson(latch))["latch"];
  CHECK(shown["offload"] == "packet");
  CHECK(shown["outer"].is_null());
  CHECK(shown["nat"].is_null());
}

TEST_CASE("A list is one document, empty or not") {
  const Json empty = Json::parse(ListJson({}, {}));
  CHECK(empty["schema"] == 1);
  CHECK(empty["latches"] == Json::array());
  CHECK(empty["sessions"] == Json::array());
  Latch second = Established();
  second.id = 1ULL << 63;
  const Json two = Json::parse(ListJson({Established(), second}, {}));
  REQUIRE(two["latches"].size() == 2);
  CHECK(two["latches"][1]["id"] == 1ULL << 63);
}

TEST_CASE("A list tells of sessions, and of their fences") {
  wire::FenceRecord lacks{};
  lacks.id = 4;
  lacks.uid = 1000;
  lacks.state = wire::FenceState::kLacking;
  lacks.launched = 1;
  std::strcpy(lacks.program, "/usr/bin/app");
  std::strcpy(lacks.why, "no cgroups");
  wire::FenceRecord alone{};
  alone.id = 5;
  alone.state = wire::FenceState::kStands;
  alone.unlatched = 1;
  const Json sessions = Json::parse(ListJson({}, {lacks, alone, wire::FenceRecord{}}))["sessions"];
  REQUIRE(sessions.size() == 2);
  CHECK(sessions[0] == Json::parse(R"({"id": 4, "program": "/usr/bin/app", "uid": 1000,
      "policy": null, "launched": true, "latched": true, "fence": "lacking",
      "not_fenced": "no cgroups"})"));
  CHECK(sessions[1]["fence"] == "stands");
  CHECK(sessions[1]["latched"] == false);
}

TEST_CASE("Octets that are no UTF-8 and control characters leave the document whole") {
  Latch latch = Established();
  latch.identity.peer_id = "a\xff\x01\"\n";
  const std::string text = ShowJson(latch);
  CHECK(Json::parse(text)["latch"]["peer_id"] == "a\xef\xbf\xbd\x01\"\n");
  CHECK(text.find('\x01') == std::string::npos);
}

TEST_CASE("Instants are RFC 3339 in UTC") {
  CHECK(Rfc3339(0) == "1970-01-01T00:00:00Z");
  CHECK(Rfc3339(951782400) == "2000-02-29T00:00:00Z");
  CHECK(Rfc3339(UINT64_MAX / 2) == "?");
}

}  // namespace
}  // namespace latchkey::tool
