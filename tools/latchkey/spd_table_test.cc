// The SPD in words, with what per-socket policies add to it.
#include "tools/latchkey/spd_table.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace latchkey::tool {
namespace {

Prefix P(const char* text) { return Prefix::Parse(text).value(); }

std::vector<broker::OwnedEntry> SomeSpd() {
  broker::OwnedEntry system;
  system.entry.dir = 1;
  system.entry.priority = 3;
  system.entry.bare = false;
  system.entry.protocol = SaProtocol::kEsp;
  system.entry.mode = Mode::kTransport;
  system.entry.reqid = 7;
  system.entry.selector.destination = P("10.9.0.0/24");
  system.entry.selector.protocol = kProtocolTcp;
  system.entry.selector.destination_port = 23;
  system.entry.selector.destination_mask = 0xffff;
  broker::OwnedEntry guard;
  guard.entry.dir = 1;
  guard.entry.block = true;
  guard.entry.mark = guard.entry.mark_mask = 0x80000000;
  guard.owner = wire::Owner::kGuard;
  broker::OwnedEntry held;
  held.entry.dir = 0;
  held.owner = wire::Owner::kLatch;
  held.latch = 5;
  return {system, guard, held};
}

Latch Clear() {
  Latch latch;
  latch.id = 9;
  latch.state = State::kEstablished;
  latch.clear = true;
  latch.flow.local = {*Address::Parse("10.9.0.1"), 40000};
  latch.flow.remote = {*Address::Parse("10.9.0.2"), 80};
  return latch;
}

TEST_CASE("One entry in words") {
  CHECK(SpdText(SomeSpd()[0].entry) ==
        "out priority 3 any -> 10.9.0.0/24 port 23 tcp: esp transport reqid 7");
  CHECK(SpdText(SomeSpd()[1].entry) == "out priority 0 any -> any: block");
  broker::OwnedEntry socket;
  socket.entry.dir = 4;
  CHECK(SpdTable({socket}, {}).find("some socket  socket-out") != std::string::npos);
}

TEST_CASE("The table says whose each entry is, and what sockets have of their own") {
  const std::string table = SpdTable(SomeSpd(), {Clear()});
  CHECK(table.find("system   out     3         -") != std::string::npos);
  CHECK(table.find("guard    out     0         0x80000000/0x80000000") != std::string::npos);
  CHECK(table.find("latch 5  in") != std::string::npos);
  CHECK(table.find("latch 9  socket") != std::string::npos);
  CHECK(table.find("allow CLEAR") != std::string::npos);
}

TEST_CASE("JSON has the same") {
  const auto json = nlohmann::json::parse(SpdJson(SomeSpd(), {Clear()}));
  CHECK(json["schema"] == 1);
  CHECK(json["spd"].size() == 3);
  CHECK(json["spd"][0]["owner"] == "system");
  CHECK(json["spd"][0]["action"] == "esp transport reqid 7");
  CHECK(json["sockets"][0]["latch"] == 9);
  CHECK(json["sockets"][0]["clear"] == true);
}

}  // namespace
}  // namespace latchkey::tool
