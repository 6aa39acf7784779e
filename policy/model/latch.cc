#include "policy/model/latch.h"

#include <algorithm>
#include <cstring>

namespace latchkey {
namespace {

template <size_t N>
void Put(char (&field)[N], const std::string& text) {
  if (text.size() < N) {
    std::memcpy(field, text.data(), text.size());
    return;
  }
  // Cut between characters: half of one is no UTF-8, and JSON writers refuse it.
  size_t kept = N - 4;
  while (kept > 0 && (static_cast<unsigned char>(text[kept]) & 0xc0) == 0x80) --kept;
  std::memcpy(field, text.data(), kept);
  std::memcpy(field + kept, "...", 3);
}

template <size_t N>
bool Get(const char (&field)[N], std::string& text) {
  const char* end = std::find(field, field + N, '\0');
  if (end == field + N) return false;
  text.assign(field, end);
  return true;
}

}  // namespace

const char* StateName(State state) {
  switch (state) {
    case State::kLarval:
      return "LARVAL";
    case State::kListener:
      return "LISTENER";
    case State::kEstablished:
      return "ESTABLISHED";
    case State::kBroken:
      return "BROKEN";
    case State::kClosed:
      return "CLOSED";
  }
  return "?";
}

const char* StateSentence(State state) {
  switch (state) {
    case State::kLarval:
      return "Waits for an SA with its peer; until there is one, nothing of it moves.";
    case State::kListener:
      return "Takes connections of peers it may have; each that is accepted has its own latch.";
    case State::kEstablished:
      return "Settled for life: packets move with the peer and protection shown, or not at all.";
    case State::kBroken:
      return "Cannot be kept, for the reason shown; nothing is sent and nothing taken in.";
    case State::kClosed:
      return "Its socket is closed, or used anew; the latch is gone.";
  }
  return "?";
}

wire::LatchRecord ToWire(const Latch& latch) {
  wire::LatchRecord record{};
  record.header =
      wire::Header{wire::kMagic, wire::kVersion, wire::Type::kLatch, sizeof(wire::LatchRecord), 0};
  record.id = latch.id;
  record.state = static_cast<uint8_t>(latch.state);
  record.protocol = latch.flow.protocol;
  record.sa_protocol = static_cast<uint8_t>(latch.protection.protocol);
  record.mode = static_cast<uint8_t>(latch.protection.mode);
  record.replay = latch.protection.replay ? 1 : 0;
  record.esn = latch.protection.esn ? 1 : 0;
  record.reason = latch.reason;
  record.local = ToWire(latch.flow.local);
  record.remote = ToWire(latch.flow.remote);
  record.reqid = latch.reqid;
  record.spi_in = latch.spi_in;
  record.spi_out = latch.spi_out;
  record.pid = latch.pid;
  record.uid = latch.uid;
  record.key_bits = latch.protection.key_bits;
  record.pin = static_cast<uint8_t>(latch.pin);
  if (latch.implicit) record.flags |= wire::kLatchImplicit;
  if (latch.clear) record.flags |= wire::kLatchClear;
  if (latch.suspends) record.flags |= wire::kLatchSuspends;
  if (latch.peering.nat_local) record.flags |= wire::kLatchNatLocal;
  if (latch.peering.nat_remote) record.flags |= wire::kLatchNatRemote;
  if (latch.offload == Offload::kCrypto) record.flags |= wire::kLatchOffloadCrypto;
  if (latch.offload == Offload::kPacket) record.flags |= wire::kLatchOffloadPacket;
  record.outer_local = ToWire(latch.peering.local);
  record.outer_remote = ToWire(latch.peering.remote);
  record.since = latch.since;
  record.listener = latch.listener;
  record.dropped = latch.dropped;
  Put(record.peer_id, latch.identity.peer_id);
  Put(record.local_id, latch.identity.local_id);
  Put(record.auth, latch.identity.auth);
  Put(record.encryption, latch.protection.encryption);
  Put(record.integrity, latch.protection.integrity);
  Put(record.policy, latch.policy);
  Put(record.rule, latch.rule);
  Put(record.program, latch.program);
  return record;
}

std::optional<Latch> FromWire(const wire::LatchRecord& record) {
  Latch latch;
  if (record.id == 0 || record.state > static_cast<uint8_t>(State::kClosed) ||
      record.pin > static_cast<uint8_t>(Pin::kSpi)) {
    return std::nullopt;
  }
  if (!Get(record.peer_id, latch.identity.peer_id) ||
      !Get(record.local_id, latch.identity.local_id) || !Get(record.auth, latch.identity.auth) ||
      !Get(record.encryption, latch.protection.encryption) ||
      !Get(record.integrity, latch.protection.integrity) || !Get(record.policy, latch.policy) ||
      !Get(record.rule, latch.rule) || !Get(record.program, latch.program)) {
    return std::nullopt;
  }
  latch.id = record.id;
  latch.state = static_cast<State>(record.state);
  latch.reason = record.reason;
  latch.flow.protocol = record.protocol;
  latch.flow.local = FromWire(record.local);
  latch.flow.remote = FromWire(record.remote);
  latch.protection.protocol = static_cast<SaProtocol>(record.sa_protocol);
  latch.protection.mode = static_cast<Mode>(record.mode);
  latch.protection.replay = record.replay != 0;
  latch.protection.esn = record.esn != 0;
  latch.protection.key_bits = record.key_bits;
  latch.reqid = record.reqid;
  latch.spi_in = record.spi_in;
  latch.spi_out = record.spi_out;
  latch.pid = record.pid;
  latch.uid = record.uid;
  latch.pin = static_cast<Pin>(record.pin);
  latch.since = record.since;
  latch.listener = record.listener;
  latch.dropped = record.dropped;
  latch.implicit = (record.flags & wire::kLatchImplicit) != 0;
  latch.clear = (record.flags & wire::kLatchClear) != 0;
  latch.suspends = (record.flags & wire::kLatchSuspends) != 0;
  latch.peering = {FromWire(record.outer_local), FromWire(record.outer_remote),
                   (record.flags & wire::kLatchNatLocal) != 0,
                   (record.flags & wire::kLatchNatRemote) != 0};
  if ((record.flags & wire::kLatchOffloadCrypto) != 0) latch.offload = Offload::kCrypto;
  if ((record.flags & wire::kLatchOffloadPacket) != 0) latch.offload = Offload::kPacket;
  return latch;
}

}  // namespace latchkey
