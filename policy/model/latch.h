// The latch: what parser, broker, JSON and command line all meet at.
#ifndef POLICY_MODEL_LATCH_H_
#define POLICY_MODEL_LATCH_H_

#include <cstdint>
#include <optional>
#include <string>

#include "policy/model/flow.h"
#include "policy/model/protection.h"
#include "shim/wire/messages.h"
#include "shim/wire/reason.h"

namespace latchkey {

// RFC 5660, section 2.2, and the LARVAL it leaves undescribed.
enum class State : uint8_t {
  kLarval = 0,       // waiting for facts; no packet moves
  kListener = 1,     // a TCP listener, or a UDP socket with many peers; spawns latches
  kEstablished = 2,  // bound to one peer and one protection
  kBroken = 3,       // in conflict; nothing moves, the owner is told
  kClosed = 4,       // gone
};

// Returns "LARVAL", "LISTENER", "ESTABLISHED", "BROKEN" or "CLOSED"; "?" for anything else.
const char* StateName(State state);

// Returns what the state means, in one sentence of less than 90 characters: the words of
// docs/ARCHITECTURE.md. "?" for anything else.
const char* StateSentence(State state);

// Where an IKE SA ends: the addresses it is known by, with ports, and the NATs in between.
struct Peering {
  SocketAddress local;
  SocketAddress remote;  // behind a NAT, what that shows
  bool nat_local = false;
  bool nat_remote = false;

  auto operator<=>(const Peering&) const = default;
};

// Where an SA's work is done.
enum class Offload : uint8_t { kNone = 0, kCrypto = 1, kPacket = 2 };

struct Latch {
  uint64_t id = 0;
  State state = State::kLarval;
  wire::Reason reason = wire::Reason::kNone;
  Flow flow;
  Identity identity;      // empty for a listener
  Protection protection;  // kNone for a listener
  Pin pin = Pin::kReqid;
  uint32_t reqid = 0;
  uint32_t spi_in = 0;
  uint32_t spi_out = 0;
  std::string program;
  uint32_t pid = 0;
  uint32_t uid = 0;
  bool implicit = false;  // because the system asks, not the application
  bool clear = false;     // decided to go unprotected, for life
  bool suspends = false;  // on_break = "suspend": the socket outlives a break
  Peering peering;        // empty where keys are manual
  Offload offload = Offload::kNone;
  std::string policy;  // the application's name
  std::string rule;
  uint64_t since = 0;     // seconds since 1970
  uint64_t listener = 0;  // of a peer of an unconnected UDP socket: the id of that socket's latch
  uint64_t dropped = 0;   // unconnected UDP: what came for the socket and was not taken in
};

// To and from the wire. Strings too long for the wire end in "..."; a record whose strings do not
// end, or whose id is 0, gives nothing.
wire::LatchRecord ToWire(const Latch& latch);
std::optional<Latch> FromWire(const wire::LatchRecord& record);

}  // namespace latchkey

#endif  // POLICY_MODEL_LATCH_H_
