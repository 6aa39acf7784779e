// Latches over the wire.
#include "policy/model/latch.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <set>
#include <string>

namespace latchkey {
namespace {

Latch Sample() {
  Latch latch;
  latch.id = 42;
  latch.state = State::kBroken;
  latch.reason = wire::Reason::kConflictSa;
  latch.flow.local = {Address::Parse("10.9.0.2").value(), 40000};
  latch.flow.remote = {Address::Parse("fd00::1").value(), 443};
  latch.identity = {"alice", "bob", "pubkey"};
  latch.protection = {SaProtocol::kEsp, Mode::kTunnel, "aes-cbc", "hmac-sha2-256", 256, true, true};
  latch.pin = Pin::kSpi;
  latch.reqid = 7;
  latch.spi_in = 0x101;
  latch.spi_out = 0x202;
  latch.program = "/usr/bin/curl";
  latch.pid = 1234;
  latch.uid = 1000;
  latch.policy = "orders-api";
  latch.rule = "database";
  latch.since = 1'900'000'000;
  latch.suspends = true;
  latch.peering = {{Address::Parse("192.0.2.1").value(), 4500},
                   {Address::Parse("203.0.113.9").value(), 31'337},
                   false,
                   true};
  latch.offload = Offload::kPacket;
  latch.listener = 41;
  latch.dropped = 17;
  return latch;
}

TEST_CASE("States have names") {
  CHECK(StateName(State::kLarval) == std::string("LARVAL"));
  CHECK(StateName(State::kListener) == std::string("LISTENER"));
  CHECK(StateName(State::kEstablished) == std::string("ESTABLISHED"));
  CHECK(StateName(State::kBroken) == std::string("BROKEN"));
  CHECK(StateName(State::kClosed) == std::string("CLOSED"));
  CHECK(StateName(static_cast<State>(5)) == std::string("?"));
}

TEST_CASE("Each state has a sentence of its own, short enough for a line") {
  std::set<std::string> seen;
  for (int number = 0; number <= static_cast<int>(State::kClosed); ++number) {
    const std::string sentence = StateSentence(static_cast<State>(number));
    CAPTURE(sentence);
    CHECK(sentence.size() > 20);
    CHECK(sentence.size() < 90);
    CHECK(sentence.back() == '.');
    CHECK(std::ranges::all_of(sentence, [](char c) { return c >= ' ' && c <= '~'; }));
    CHECK(seen.insert(sentence).second);
  }
  CHECK(StateSentence(static_cast<State>(5)) == std::string("?"));
}

TEST_CASE("A latch comes back from the wire as it went") {
  const Latch latch = Sample();
  const wire::LatchRecord record = ToWire(latch);
  CHECK(record.header.magic == wire::kMagic);
  CHECK(record.header.type == wire::Type::kLatch);
  CHECK(record.header.size == sizeof(wire::LatchRecord));
  const std::optional<Latch> back = FromWire(record);
  REQUIRE(back.has_value());
  CHECK(back->id == latch.id);
  CHECK(back->state == latch.state);
  CHECK(back->reason == latch.reason);
  CHECK(back->flow == latch.flow);
  CHECK(back->identity == latch.identity);
  CHECK(back->protection == latch.protection);
  CHECK(back->pin == latch.pin);
  CHECK(back->reqid == latch.reqid);
  CHECK(back->spi_in == latch.spi_in);
  CHECK(back->spi_out == latch.spi_out);
  CHECK(back->program == latch.program);
  CHECK(back->pid == latch.pid);
  CHECK(back->uid == latch.uid);
  CHECK(back->policy == latch.policy);
  CHECK(back->rule == latch.rule);
  CHECK(back->since == latch.since);
  CHECK(back->suspends == latch.suspends);
  CHECK(back->peering == latch.peering);
  CHECK(back->offload == latch.offload);
}

TEST_CASE("Long strings end in three dots, and in a NUL") {
  Latch latch = Sample();
  latch.identity.peer_id = std::string(255, 'a');
  CHECK(FromWire(ToWire(latch))->identity.peer_id == std::string(255, 'a'));
  latch.identity.peer_id = std::string(256, 'a');
  CHECK(FromWire(ToWire(latch))->identity.peer_id == std::string(252, 'a') + "...");
  latch.identity.peer_id = std::string(10'000, 'a');
  CHECK(FromWire(ToWire(latch))->identity.peer_id == std::string(252, 'a') + "...");
  latch.rule = std::string(63, 'r');
  CHECK(FromWire(ToWire(latch))->rule == std::string(63, 'r'));
  latch.rule = std::string(64, 'r');
  CHECK(FromWire(ToWire(latch))->rule == std::string(60, 'r') + "...");
}

TEST_CASE("A cut never leaves half a character") {
  Latch latch = Sample();
  // 59 octets, then characters of two and four octets over the place of the cut.
  latch.rule = std::string(59, 'r') + "\xc3\xa9" + "\xc3\xa9" + "end";
  CHECK(FromWire(ToWire(latch))->rule == std::string(59, 'r') + "...");
  latch.rule = std::string(57, 'r') + "\xf0\x9f\x94\x91" + "the end";
  CHECK(FromWire(ToWire(latch))->rule == std::string(57, 'r') + "...");
  latch.rule = std::string(58, 'r') + "\xc3\xa9" + "the end";
  CHECK(FromWire(ToWire(latch))->rule == std::string(58, 'r') + "\xc3\xa9...");
  latch.rule = std::string(100, '\x80');
  CHECK(FromWire(ToWire(latch))->rule == "...");
}

TEST_CASE("A record out of range gives nothing") {
  const wire::LatchRecord good = ToWire(Sample());
  REQUIRE(FromWire(good).has_value());
  const auto accepted = [&good](auto change) {
    wire::LatchRecord record = good;
    change(record);
    return FromWire(record).has_value();
  };
  CHECK_FALSE(accepted([](wire::LatchRecord& r) { r.id = 0; }));
  CHECK(accepted([](wire::LatchRecord& r) { r.state = 4; }));
  CHECK_FALSE(accepted([](wire::LatchRecord& r) { r.state = 5; }));
  CHECK(accepted([](wire::LatchRecord& r) { r.pin = 2; }));
  CHECK_FALSE(accepted([](wire::LatchRecord& r) { r.pin = 3; }));
}

TEST_CASE("A record whose strings do not end gives nothing") {
  const wire::LatchRecord good = ToWire(Sample());
  const auto accepted = [&good](auto field) {
    wire::LatchRecord record = good;
    std::memset(&(record.*field), 'x', sizeof(record.*field));
    return FromWire(record).has_value();
  };
  CHECK_FALSE(accepted(&wire::LatchRecord::peer_id));
  CHECK_FALSE(accepted(&wire::LatchRecord::local_id));
  CHECK_FALSE(accepted(&wire::LatchRecord::auth));
  CHECK_FALSE(accepted(&wire::LatchRecord::encryption));
  CHECK_FALSE(accepted(&wire::LatchRecord::integrity));
  CHECK_FALSE(accepted(&wire::LatchRecord::policy));
  CHECK_FALSE(accepted(&wire::LatchRecord::rule));
  CHECK_FALSE(accepted(&wire::LatchRecord::program));
}

}  // namespace
}  // namespace latchkey
