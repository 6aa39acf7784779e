#include "tools/latchkey/event.h"

#include <catch2/catch.hpp>
#include <functional>
#include <nlohmann/json.hpp>

#include "tools/latchkey/event_text.h"
#include "tools/latchkey/latch_json.h"

namespace latchkey::tool {
namespace {

using Json = nlohmann::json;

wire::EventRecord Record() {
  Latch latch;
  latch.id = 7;
  latch.state = State::kBroken;
  latch.reason = wire::Reason::kAdmin;
  latch.flow.protocol = kProtocolTcp;
  latch.flow.local = {*Address::Parse("10.9.0.1"), 40000};
  latch.flow.remote = {*Address::Parse("fd00::2"), 443};
  latch.identity.peer_id = "b.example";
  latch.rule = "server";
  latch.program = "/usr/bin/curl";
  latch.pid = 1234;
  wire::EventRecord record{};
  record.time = 1700000000;
  record.from = static_cast<uint8_t>(State::kEstablished);
  record.direction = static_cast<uint8_t>(Direction::kOut);
  record.latch = ToWire(latch);
  return record;
}

std::string Line(const wire::EventRecord& record, const std::string& broker = {}) {
  const auto event = EventFromWire(record);
  REQUIRE(event);
  return EventLine(*event, broker);
}

TEST_CASE("A line says when, which, what, why, and whose") {
  CHECK(Line(Record()) ==
        "2023-11-14T22:13:20Z latch 7 ESTABLISHED -> BROKEN: admin tcp 10.9.0.1:40000 -> "
        "[fd00::2]:443 peer b.example rule server program /usr/bin/curl pid 1234\n");
  wire::EventRecord record = Record();
  record.direction = static_cast<uint8_t>(Direction::kIn);
  record.from = record.latch.state = static_cast<uint8_t>(State::kEstablished);
  record.latch.reason = wire::Reason::kNone;
  record.latch.flags = wire::kLatchClear;
  record.latch.peer_id[0] = '\0';
  CHECK(Line(record, "/run/b.sock") ==
        "2023-11-14T22:13:20Z latch 7 new -> ESTABLISHED: none tcp 10.9.0.1:40000 <- "
        "[fd00::2]:443 CLEAR rule server program /usr/bin/curl pid 1234 broker /run/b.sock\n");
  record.stalled = wire::kStallBegins;
  CHECK(Line(record).find(" latch 7 stalls: no-sa tcp ") != std::string::npos);
  record.stalled = wire::kStallEnds;
  CHECK(Line(record).find(" latch 7 moves again: no-sa tcp ") != std::string::npos);
}

TEST_CASE("A listener has one end; what others named is made harmless") {
  wire::EventRecord record = Record();
  record.from = record.latch.state = static_cast<uint8_t>(State::kListener);
  record.latch.remote = {};
  record.latch.program[0] = '\x1b';
  const std::string line = Line(record);
  CHECK(line.find("new -> LISTENER: admin tcp 10.9.0.1:40000 peer ") != std::string::npos);
  CHECK(line.find("program \\x1busr/bin/curl") != std::string::npos);
}

TEST_CASE("As JSON an event is one line of schema 1") {
  wire::EventRecord record = Record();
  std::string line = EventJson(*EventFromWire(record), "/run/b.sock");
  CHECK(line.find('\n') == line.size() - 1);
  Json document = Json::parse(line);
  CHECK(document["latch"] == Json::parse(ShowJson(*latchkey::FromWire(record.latch)))["latch"]);
  document.erase("latch");
  CHECK(document == Json::parse(R"({
    "schema": 1, "time": "2023-11-14T22:13:20Z", "event": "state", "id": 7,
    "from": "ESTABLISHED", "to": "BROKEN", "reason": "admin", "direction": "out",
    "broker": "/run/b.sock"
  })"));
  record.from = record.latch.state;
  CHECK(Json::parse(EventJson(*EventFromWire(record), ""))["from"].is_null());
  record.stalled = wire::kStallBegins;
  document = Json::parse(EventJson(*EventFromWire(record), ""));
  CHECK(document["event"] == "stall");
  CHECK(document["from"] == "BROKEN");
  CHECK(document["reason"] == "no-sa");
  record.stalled = wire::kStallEnds;
  record.direction = static_cast<uint8_t>(Direction::kIn);
  document = Json::parse(EventJson(*EventFromWire(record), ""));
  CHECK(document["event"] == "move");
  CHECK(document["direction"] == "in");
}

TEST_CASE("Damaged events are none") {
  CHECK(EventFromWire(Record()));
  const std::function<void(wire::EventRecord&)> damages[] = {
      [](wire::EventRecord& r) { r.from = 5; },
      [](wire::EventRecord& r) { r.stalled = 3; },
      [](wire::EventRecord& r) { r.direction = 0; },
      [](wire::EventRecord& r) { r.direction = 3; },
      [](wire::EventRecord& r) { r.latch.id = 0; },
      [](wire::EventRecord& r) { r.latch.state = 9; },
  };
  for (const auto& damage : damages) {
    wire::EventRecord record = Record();
    damage(record);
    CHECK_FALSE(EventFromWire(record));
  }
}

}  // namespace
}  // namespace latchkey::tool
