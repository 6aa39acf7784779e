// A flow as a decision sees it, and the kernel's SPD as far as decisions need it.
#ifndef POLICY_MODEL_FLOW_H_
#define POLICY_MODEL_FLOW_H_

#include <compare>
#include <cstdint>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/protection.h"

namespace latchkey {

enum class Direction : uint8_t { kOut = 1, kIn = 2, kBoth = 3 };

inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;

// Direction is who began it: kOut for connect, kIn for accept. A port of 0 is one not known yet.
struct Flow {
  Direction direction = Direction::kOut;
  uint8_t protocol = kProtocolTcp;
  SocketAddress local;
  SocketAddress remote;

  auto operator<=>(const Flow&) const = default;
  // True where nothing leaves the host: a loopback address, or both ends the same address.
  bool SameHost() const;
};

// An XFRM selector: prefixes of one family, a protocol (0 = any) and ports with masks (mask 0 =
// any).
struct Selector {
  Family family = Family::kNone;  // kNone: both
  Prefix source;
  Prefix destination;
  uint8_t protocol = 0;
  uint16_t source_port = 0, source_mask = 0;
  uint16_t destination_port = 0, destination_mask = 0;

  auto operator<=>(const Selector&) const = default;
  // True when a packet from `source` to `destination` would match. A port of 0 in the packet
  // (not known yet) matches any port of the selector, and so does an address of kNone: for such a
  // question "might match" is the safe answer.
  bool Matches(uint8_t packet_protocol, const SocketAddress& from, const SocketAddress& to) const;
  // True when it is one flow's 5-tuple: whole addresses, a protocol and both ports.
  bool OfOneFlow() const;
};

// Returns the selector of the packets that come back.
Selector Mirrored(const Selector& selector);

// One SPD entry as dumped from the kernel.
struct SpdEntry {
  Selector selector;
  uint8_t dir = 0;  // XFRM_POLICY_IN 0, OUT 1, FWD 2; 3 and 4 are socket policies
  uint32_t index = 0;
  uint32_t priority = 0;
  bool block = false;
  uint32_t mark = 0, mark_mask = 0;
  uint32_t if_id = 0;
  // First template, when there is one. `bare` = ALLOW with nothing that must be there.
  bool bare = true;
  SaProtocol protocol = SaProtocol::kNone;
  Mode mode = Mode::kUnknown;
  uint32_t reqid = 0;
  Address tunnel_source, tunnel_destination;  // of a tunnel; kNone where it names none

  auto operator<=>(const SpdEntry&) const = default;
};

// What the system policy does to a flow.
enum class SystemAction : uint8_t { kBypass = 0, kProtect = 1, kDiscard = 2 };

struct SystemView {
  SystemAction action = SystemAction::kBypass;
  uint32_t reqid = 0;               // of the entry's template, 0 = none
  const SpdEntry* entry = nullptr;  // what asks it; null for kBypass. Lives as the SPD does.
};

// Returns what the SPD asks of `flow` in the outgoing (`out`) or incoming direction: the entry of
// the lowest priority number, the older (lower index) of equals, marked and interface entries left
// out. Where a port or address of the flow is not known yet, the strictest of the entries that
// might come to decide: discard, then protect, then bypass.
SystemView LookUpSpd(const std::vector<SpdEntry>& spd, const Flow& flow, bool out);

}  // namespace latchkey

#endif  // POLICY_MODEL_FLOW_H_
