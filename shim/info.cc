#include "shim/info.h"

namespace latchkey::shim {
namespace {

// policy/model's State, which the wire carries.
constexpr uint8_t kEstablished = LATCHKEY_ESTABLISHED;

static_assert(sizeof(latchkey_endpoint) == sizeof(wire::Endpoint));
static_assert(LATCHKEY_IMPLICIT == wire::kLatchImplicit);
static_assert(LATCHKEY_IN_CLEAR == wire::kLatchClear);
static_assert(LATCHKEY_NAT_LOCAL == wire::kLatchNatLocal);
static_assert(LATCHKEY_NAT_REMOTE == wire::kLatchNatRemote);
static_assert(LATCHKEY_OFFLOAD_CRYPTO == wire::kLatchOffloadCrypto);
static_assert(LATCHKEY_OFFLOAD_PACKET == wire::kLatchOffloadPacket);
static_assert(LATCHKEY_ID_MAX == wire::kIdSize && LATCHKEY_NAME_MAX == wire::kNameSize);

template <size_t kTo, size_t kFrom>
void Copy(char (&to)[kTo], const char (&from)[kFrom]) {
  static_assert(kTo >= kFrom);
  const size_t length = LengthWithin(from, kFrom - 1);
  for (size_t i = 0; i < length; ++i) to[i] = from[i];
}

latchkey_endpoint EndpointOf(const wire::Endpoint& from) {
  latchkey_endpoint to{from.family, from.port, from.scope, {}};
  for (size_t i = 0; i < sizeof(to.address); ++i) to.address[i] = from.address[i];
  return to;
}

}  // namespace

size_t LengthWithin(const char* text, size_t room) {
  size_t length = 0;
  while (length < room && text[length] != '\0') ++length;
  return length;
}

int StateOf(const wire::LatchRecord& record) {
  const bool clear = (record.flags & wire::kLatchClear) != 0;
  return clear && record.state == kEstablished ? int{LATCHKEY_CLEAR} : record.state;
}

int DispositionOf(const wire::LatchRecord& record) {
  return (record.flags & wire::kLatchSuspends) != 0 ? LATCHKEY_SUSPEND : LATCHKEY_RESET;
}

void FillInfo(const wire::LatchRecord& record, latchkey_info& info) {
  info = latchkey_info{};
  info.size = sizeof(info);
  info.version = LATCHKEY_INFO_VERSION;
  info.id = record.id;
  info.since = record.since;
  info.state = StateOf(record);
  info.disposition = DispositionOf(record);
  info.flags = record.flags & ~uint32_t{wire::kLatchSuspends};
  info.reqid = record.reqid;
  info.spi_in = record.spi_in;
  info.spi_out = record.spi_out;
  info.key_bits = record.key_bits;
  info.sa_protocol = record.sa_protocol;
  info.mode = record.mode;
  info.replay = record.replay;
  info.esn = record.esn;
  info.pin = record.pin;
  info.dropped = record.dropped;
  info.protocol = record.protocol;
  info.local = EndpointOf(record.local);
  info.remote = EndpointOf(record.remote);
  info.outer_local = EndpointOf(record.outer_local);
  info.outer_remote = EndpointOf(record.outer_remote);
  Copy(info.peer_id, record.peer_id);
  Copy(info.local_id, record.local_id);
  Copy(info.auth, record.auth);
  Copy(info.encryption, record.encryption);
  Copy(info.integrity, record.integrity);
  Copy(info.policy, record.policy);
  Copy(info.rule, record.rule);
  if (record.reason == wire::Reason::kNone) return;
  const char* word = wire::ReasonWord(record.reason);
  const size_t length = LengthWithin(word, sizeof(info.reason) - 1);
  for (size_t i = 0; i < length; ++i) info.reason[i] = word[i];
}

}  // namespace latchkey::shim
