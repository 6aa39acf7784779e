#include "shim/info.h"

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <string>

#include "policy/model/latch.h"

namespace latchkey::shim {
namespace {

Latch Example() {
  Latch latch;
  latch.id = 7;
  latch.state = State::kEstablished;
  latch.flow = {Direction::kOut,
                kProtocolTcp,
                {*Address::Parse("10.9.0.1"), 40000},
                {*Address::Parse("10.9.0.2"), 443}};
  latch.identity = {"bob.example", "alice.example", "pubkey"};
  latch.protection = {SaProtocol::kEsp, Mode::kTunnel, "aes-gcm-16", "", 256, true, true};
  latch.pin = Pin::kSpi;
  latch.reqid = 9;
  latch.spi_in = 0x101;
  latch.spi_out = 0x202;
  latch.policy = "app";
  latch.rule = "all";
  latch.since = 1'700'000'000;
  latch.implicit = true;
  latch.peering = {{*Address::Parse("192.0.2.1"), 4500}, {*Address::Parse("192.0.2.2"), 4500}};
  latch.peering.nat_remote = true;
  return latch;
}

latchkey_info InfoOf(const Latch& latch) {
  latchkey_info info;
  std::memset(&info, 0xff, sizeof(info));
  FillInfo(ToWire(latch), info);
  return info;
}

TEST_CASE("the structure is the one that is documented: fields never move") {
  CHECK(sizeof(latchkey_info) == 1024);
  CHECK(offsetof(latchkey_info, id) == 8);
  CHECK(offsetof(latchkey_info, state) == 24);
  CHECK(offsetof(latchkey_info, key_bits) == 48);
  CHECK(offsetof(latchkey_info, local) == 56);
  CHECK(offsetof(latchkey_info, outer_remote) == 128);
  CHECK(offsetof(latchkey_info, peer_id) == 152);
  CHECK(offsetof(latchkey_info, local_id) == 408);
  CHECK(offsetof(latchkey_info, auth) == 664);
  CHECK(offsetof(latchkey_info, reason) == 984);
  CHECK(offsetof(latchkey_info, dropped) == 1016);
}

TEST_CASE("everything that is latched is told") {
  const latchkey_info info = InfoOf(Example());
  CHECK(info.size == sizeof(info));
  CHECK(info.version == 1);
  CHECK(info.id == 7);
  CHECK(info.since == 1'700'000'000);
  CHECK(info.state == LATCHKEY_ESTABLISHED);
  CHECK(info.disposition == LATCHKEY_RESET);
  CHECK(info.flags == (LATCHKEY_IMPLICIT | LATCHKEY_NAT_REMOTE));
  CHECK(info.reqid == 9);
  CHECK(info.spi_in == 0x101);
  CHECK(info.spi_out == 0x202);
  CHECK(info.key_bits == 256);
  CHECK(info.sa_protocol == 50);
  CHECK(info.mode == 1);
  CHECK(info.replay == 1);
  CHECK(info.esn == 1);
  CHECK(info.pin == 2);
  CHECK(info.protocol == 6);
  CHECK(info.local.port == 40000);
  CHECK(info.remote.address[3] == 2);
  CHECK(info.outer_local.port == 4500);
  CHECK(info.outer_remote.address[0] == 192);
  CHECK(std::string(info.peer_id) == "bob.example");
  CHECK(std::string(info.local_id) == "alice.example");
  CHECK(std::string(info.auth) == "pubkey");
  CHECK(std::string(info.encryption) == "aes-gcm-16");
  CHECK(std::string(info.integrity).empty());
  CHECK(std::string(info.policy) == "app");
  CHECK(std::string(info.rule) == "all");
  CHECK(std::string(info.reason).empty());
}

TEST_CASE("a flow in clear is never told to be established") {
  Latch latch = Example();
  latch.clear = true;
  CHECK(InfoOf(latch).state == LATCHKEY_CLEAR);
  CHECK((InfoOf(latch).flags & LATCHKEY_IN_CLEAR) != 0);
  latch.state = State::kBroken;
  CHECK(InfoOf(latch).state == LATCHKEY_BROKEN);
}

TEST_CASE("a break has its word, and its disposition") {
  Latch latch = Example();
  latch.state = State::kBroken;
  latch.reason = wire::Reason::kConflictSa;
  latch.suspends = true;
  const latchkey_info info = InfoOf(latch);
  CHECK(info.state == LATCHKEY_BROKEN);
  CHECK(info.disposition == LATCHKEY_SUSPEND);
  CHECK(std::string(info.reason) == "conflict-sa");
  CHECK((info.flags & wire::kLatchSuspends) == 0);
}

TEST_CASE("every reason's word fits") {
  for (uint16_t i = 0; i < wire::kReasonCount; ++i) {
    CHECK(std::strlen(wire::ReasonWord(static_cast<wire::Reason>(i))) <
          sizeof(latchkey_info::reason));
  }
}

TEST_CASE("a text that does not end is cut") {
  wire::LatchRecord record = ToWire(Example());
  std::memset(record.peer_id, 'x', sizeof(record.peer_id));
  latchkey_info info;
  FillInfo(record, info);
  CHECK(std::strlen(info.peer_id) == sizeof(info.peer_id) - 1);
}

}  // namespace
}  // namespace latchkey::shim
