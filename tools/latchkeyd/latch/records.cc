#include "tools/latchkeyd/latch/records.h"

#include <algorithm>
#include <cstring>

namespace latchkey::broker {
namespace {

template <size_t N>
void Put(char (&field)[N], const std::string& text) {
  size_t kept = std::min(text.size(), N - 1);
  // Cut between characters: half of one is no UTF-8.
  while (kept < text.size() && kept > 0 &&
         (static_cast<unsigned char>(text[kept]) & 0xc0) == 0x80) {
    --kept;
  }
  std::memcpy(field, text.data(), kept);
}

template <size_t N>
bool Get(const char (&field)[N], std::string& text) {
  const char* end = std::find(field, field + N, '\0');
  if (end == field + N) return false;
  text.assign(field, end);
  return true;
}

bool IsMode(uint8_t mode) { return mode == 0 || mode == 1 || mode == 4 || mode == 255; }
bool IsSaProtocol(uint8_t protocol) { return protocol == 0 || protocol == 50 || protocol == 51; }

wire::SelectorRecord SelectorToWire(const Selector& s) {
  wire::SelectorRecord record{};
  record.source = ToWire(SocketAddress{s.source.base, s.source_port});
  record.destination = ToWire(SocketAddress{s.destination.base, s.destination_port});
  record.source.port = s.source_port;
  record.destination.port = s.destination_port;
  record.source_prefix = s.source.length;
  record.destination_prefix = s.destination.length;
  record.family = static_cast<uint8_t>(s.family);
  record.protocol = s.protocol;
  record.source_mask = s.source_mask;
  record.destination_mask = s.destination_mask;
  return record;
}

bool SelectorFromWire(const wire::SelectorRecord& record, Selector& s) {
  if (record.family != 0 && record.family != 4 && record.family != 6) return false;
  s.family = static_cast<Family>(record.family);
  s.source = {FromWire(record.source).address, record.source_prefix};
  s.destination = {FromWire(record.destination).address, record.destination_prefix};
  s.source_port = record.source.port;
  s.destination_port = record.destination.port;
  s.protocol = record.protocol;
  s.source_mask = record.source_mask;
  s.destination_mask = record.destination_mask;
  const auto fits = [](const Prefix& prefix) {
    return prefix.base.family == Family::kNone ? prefix.length == 0
                                               : prefix.length <= prefix.base.Bits();
  };
  return fits(s.source) && fits(s.destination);
}

wire::Header HeaderOf(wire::Type type, uint32_t size) {
  return wire::Header{wire::kMagic, wire::kVersion, type, size, 0};
}

}  // namespace

wire::SpdRecord ToRecord(const OwnedEntry& owned) {
  const SpdEntry& entry = owned.entry;
  wire::SpdRecord record{};
  record.header = HeaderOf(wire::Type::kSpdEntry, sizeof(record));
  record.more = 1;
  record.dir = entry.dir;
  record.block = entry.block ? 1 : 0;
  record.bare = entry.bare ? 1 : 0;
  record.sa_protocol = static_cast<uint8_t>(entry.protocol);
  record.mode = static_cast<uint8_t>(entry.mode);
  record.owner = owned.owner;
  record.index = entry.index;
  record.priority = entry.priority;
  record.mark = entry.mark;
  record.mark_mask = entry.mark_mask;
  record.if_id = entry.if_id;
  record.reqid = entry.reqid;
  record.latch = owned.latch;
  record.selector = SelectorToWire(entry.selector);
  return record;
}

std::optional<OwnedEntry> FromRecord(const wire::SpdRecord& record) {
  OwnedEntry owned;
  if (record.more != 1 || record.owner > wire::Owner::kLatch || !IsMode(record.mode) ||
      !IsSaProtocol(record.sa_protocol) ||
      !SelectorFromWire(record.selector, owned.entry.selector)) {
    return std::nullopt;
  }
  SpdEntry& entry = owned.entry;
  entry.dir = record.dir;
  entry.block = record.block != 0;
  entry.bare = record.bare != 0;
  entry.protocol = static_cast<SaProtocol>(record.sa_protocol);
  entry.mode = static_cast<Mode>(record.mode);
  entry.index = record.index;
  entry.priority = record.priority;
  entry.mark = record.mark;
  entry.mark_mask = record.mark_mask;
  entry.if_id = record.if_id;
  entry.reqid = record.reqid;
  owned.owner = record.owner;
  owned.latch = record.latch;
  return owned;
}

wire::SaRecord ToRecord(const KnownSa& known) {
  const Sa& sa = known.sa;
  wire::SaRecord record{};
  record.header = HeaderOf(wire::Type::kSaEntry, sizeof(record));
  record.more = 1;
  record.inbound = known.inbound ? 1 : 0;
  record.sa_protocol = static_cast<uint8_t>(sa.protection.protocol);
  record.mode = static_cast<uint8_t>(sa.protection.mode);
  record.replay = sa.protection.replay ? 1 : 0;
  record.esn = sa.protection.esn ? 1 : 0;
  record.spi = sa.key.spi;
  record.reqid = sa.reqid;
  record.mark_mask = sa.mark_mask;
  record.key_bits = sa.protection.key_bits;
  record.source = ToWire(SocketAddress{sa.source, 0});
  record.destination = ToWire(SocketAddress{sa.key.destination, 0});
  record.selector = SelectorToWire(sa.selector);
  Put(record.encryption, sa.protection.encryption);
  Put(record.integrity, sa.protection.integrity);
  if (known.who.known()) {
    record.known = 1;
    record.static_reqid = known.who.verified.static_reqid ? 1 : 0;
    Put(record.peer_id, known.who.verified.identity.peer_id);
    Put(record.local_id, known.who.verified.identity.local_id);
    Put(record.auth, known.who.verified.identity.auth);
  }
  return record;
}

std::optional<KnownSa> FromRecord(const wire::SaRecord& record) {
  KnownSa known;
  Sa& sa = known.sa;
  if (record.more != 1 || !IsMode(record.mode) || !IsSaProtocol(record.sa_protocol) ||
      !SelectorFromWire(record.selector, sa.selector) ||
      !Get(record.encryption, sa.protection.encryption) ||
      !Get(record.integrity, sa.protection.integrity)) {
    return std::nullopt;
  }
  known.inbound = record.inbound != 0;
  sa.protection.protocol = static_cast<SaProtocol>(record.sa_protocol);
  sa.protection.mode = static_cast<Mode>(record.mode);
  sa.protection.replay = record.replay != 0;
  sa.protection.esn = record.esn != 0;
  sa.protection.key_bits = record.key_bits;
  sa.source = FromWire(record.source).address;
  sa.key = {FromWire(record.destination).address, record.spi, sa.protection.protocol};
  sa.reqid = record.reqid;
  sa.mark_mask = record.mark_mask;
  if (record.known == 1) {
    Verified verified;
    verified.static_reqid = record.static_reqid != 0;
    if (!Get(record.peer_id, verified.identity.peer_id) ||
        !Get(record.local_id, verified.identity.local_id) ||
        !Get(record.auth, verified.identity.auth)) {
      return std::nullopt;
    }
    known.who = Identified::Known(verified);
  }
  return known;
}

wire::IncidentRecord ToRecord(const Incident& incident) {
  wire::IncidentRecord record{};
  record.header = HeaderOf(wire::Type::kIncident, sizeof(record));
  record.id = incident.id;
  record.time = incident.time;
  record.latch = incident.latch;
  record.reason = incident.reason;
  record.direction = static_cast<uint8_t>(incident.flow.direction);
  record.protocol = incident.flow.protocol;
  record.pid = incident.pid;
  record.uid = incident.uid;
  record.local = ToWire(incident.flow.local);
  record.remote = ToWire(incident.flow.remote);
  Put(record.program, incident.program);
  Put(record.policy, incident.policy);
  Put(record.detail, incident.detail);
  Put(record.rule, incident.rule);
  return record;
}

std::optional<Incident> FromRecord(const wire::IncidentRecord& record) {
  Incident incident;
  if (record.id == 0 || record.direction < 1 || record.direction > 3 ||
      !Get(record.program, incident.program) || !Get(record.policy, incident.policy) ||
      !Get(record.detail, incident.detail) || !Get(record.rule, incident.rule)) {
    return std::nullopt;
  }
  incident.id = record.id;
  incident.time = record.time;
  incident.latch = record.latch;
  incident.reason = record.reason;
  incident.flow.direction = static_cast<Direction>(record.direction);
  incident.flow.protocol = record.protocol;
  incident.flow.local = FromWire(record.local);
  incident.flow.remote = FromWire(record.remote);
  incident.pid = record.pid;
  incident.uid = record.uid;
  return incident;
}

}  // namespace latchkey::broker
