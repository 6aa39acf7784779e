// What the control program asks for comes back as it was.
#include "tools/latchkeyd/latch/records.h"

#include <catch2/catch.hpp>
#include <cstring>

namespace latchkey::broker {
namespace {

Prefix P(const char* text) { return Prefix::Parse(text).value(); }

Selector SomeSelector() {
  Selector selector;
  selector.family = Family::kV6;
  selector.source = P("fd00::/16");
  selector.destination = P("fd00::1");
  selector.protocol = kProtocolTcp;
  selector.source_port = 0;
  selector.destination_port = 23;
  selector.destination_mask = 0xffff;
  return selector;
}

TEST_CASE("SPD entries") {
  OwnedEntry owned;
  SpdEntry& entry = owned.entry;
  entry.selector = SomeSelector();
  entry.dir = 1;
  entry.index = 17;
  entry.priority = 3;
  entry.mark = entry.mark_mask = 0x80000000;
  entry.if_id = 2;
  entry.bare = false;
  entry.protocol = SaProtocol::kAh;
  entry.mode = Mode::kTunnel;
  entry.reqid = 7;
  owned.owner = wire::Owner::kLatch;
  owned.latch = 9;
  CHECK(FromRecord(ToRecord(owned)) == owned);
  CHECK(FromRecord(ToRecord(OwnedEntry{})) == OwnedEntry{});
  wire::SpdRecord record = ToRecord(owned);
  record.mode = 9;
  CHECK_FALSE(FromRecord(record));
  record = ToRecord(owned);
  record.selector.source_prefix = 129;
  CHECK_FALSE(FromRecord(record));
  record = ToRecord(owned);
  record.owner = static_cast<wire::Owner>(3);
  CHECK_FALSE(FromRecord(record));
  CHECK_FALSE(FromRecord(wire::SpdRecord{}));
}

TEST_CASE("SAs") {
  KnownSa known;
  known.inbound = true;
  known.sa.selector = SomeSelector();
  known.sa.protection = {
      SaProtocol::kEsp, Mode::kTransport, "aes-cbc", "hmac-sha1", 256, true, true};
  known.sa.key = {*Address::Parse("10.9.0.1"), 0x1234, SaProtocol::kEsp};
  known.sa.source = *Address::Parse("10.9.0.2");
  known.sa.reqid = 7;
  known.who = Identified::Known({{"alice", "bob", "manual"}, true, {}});
  const auto again = FromRecord(ToRecord(known));
  REQUIRE(again);
  CHECK(again->sa == known.sa);
  CHECK(again->inbound);
  CHECK(again->who == known.who);
  known.who = Identified::Nobody();
  CHECK_FALSE(FromRecord(ToRecord(known))->who.known());
  wire::SaRecord record = ToRecord(known);
  std::memset(record.encryption, 'x', sizeof(record.encryption));
  CHECK_FALSE(FromRecord(record));
  CHECK_FALSE(FromRecord(wire::SaRecord{}));
}

TEST_CASE("Incidents") {
  Incident incident;
  incident.id = 3;
  incident.time = 1'700'000'000;
  incident.latch = 8;
  incident.reason = wire::Reason::kNoSa;
  incident.flow.local = {*Address::Parse("10.9.0.1"), 1};
  incident.flow.remote = {*Address::Parse("10.9.0.2"), 80};
  incident.pid = 12;
  incident.uid = 1000;
  incident.program = "/usr/bin/curl";
  incident.policy = "web";
  incident.detail = "rule web";
  incident.rule = "/etc/latchkey/policy.d/web.toml:12: rule \"web\"";
  CHECK(FromRecord(ToRecord(incident)) == incident);
  incident.detail = std::string(254, 'x') + "\u00e9";
  CHECK(FromRecord(ToRecord(incident))->detail == std::string(254, 'x'));
  CHECK_FALSE(FromRecord(wire::IncidentRecord{}));
}

}  // namespace
}  // namespace latchkey::broker
