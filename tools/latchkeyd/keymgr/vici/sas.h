// What charon tells of its SAs (list-sas and the events), as plain structs. Pure: no state.
//
// Who the peer is: its IKE identity as charon verified it, but where charon shows an EAP identity,
// that: an EAP client's IKE identity is its own claim, and only the EAP identity is what it proved.
// IKEv1's XAuth name is not taken: the peer is then who the first phase says.
//
// VICI shows identities as text, without their type, and "?" for what cannot be printed. So a text
// can stand for more than one name; it names nobody where that shows (see Plain()).
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_SAS_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_SAS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/latch.h"
#include "policy/model/protection.h"
#include "tools/latchkeyd/keymgr/vici/message.h"

namespace latchkey::broker::vici {

// A CHILD_SA: a pair of SAs.
struct ChildSa {
  std::string name;  // of its configuration
  uint32_t id = 0;   // unique while charon runs
  uint32_t reqid = 0;
  std::string state;  // "INSTALLED", "REKEYING", "REKEYED", "DELETING", …
  Mode mode = Mode::kUnknown;
  SaProtocol protocol = SaProtocol::kNone;
  bool encap = false;  // ESP in UDP
  uint32_t spi_in = 0;
  uint32_t spi_out = 0;
  std::string encryption;  // our names; IKE's where we have none; empty: none
  std::string integrity;
  uint16_t key_bits = 0;
  bool esn = false;
  std::vector<std::string> local_ts;  // traffic selectors, as charon prints them
  std::vector<std::string> remote_ts;

  bool operator==(const ChildSa&) const = default;
  // True when it has SAs in the kernel.
  bool installed() const { return spi_in != 0 && protocol != SaProtocol::kNone; }
};

struct IkeSa {
  std::string name;  // of its configuration
  uint32_t id = 0;   // unique while charon runs; another one after a rekey
  std::string state;
  std::string spis;  // of the IKE_SA, which no other one has: "initiator-responder"
  SocketAddress local;
  SocketAddress remote;
  std::string local_id;
  std::string remote_id;
  std::string eap_id;  // of the peer, empty unless it is another than remote_id
  bool nat_local = false;
  bool nat_remote = false;
  bool nat_any = false;
  std::vector<ChildSa> children;

  bool operator==(const IkeSa&) const = default;
  const std::string& peer_id() const { return eap_id.empty() ? remote_id : eap_id; }
  Peering peering() const { return {local, remote, nat_local, nat_remote}; }
  // True once the peer has proved who it is.
  bool authenticated() const;
};

// True when the text of an identity, as charon prints it, can only mean one name: no "?" (stands
// for what cannot be printed), no "%any" or range, none of our own prefixes of kinds ("dn:", which
// a peer could have in a name of another kind), not empty, not longer than a latch can hold.
bool Plain(std::string_view id);

// Reads an IKE_SA with its children from what is in the section named like its configuration.
// Nothing where there is no unique id, or an address is none. A child without unique id, SPIs, …
// is left out.
std::optional<IkeSa> ReadIkeSa(std::string_view name, const Section& section);

// list-sa, ike-updown, child-updown: the one IKE_SA; `up` as the event says.
struct UpDown {
  bool up = false;
  IkeSa ike;
};
std::optional<UpDown> ReadUpDown(const Section& message);

// child-rekey: the IKE_SA without children, and the two.
struct ChildRekey {
  IkeSa ike;
  ChildSa from;
  ChildSa to;
};
std::optional<ChildRekey> ReadChildRekey(const Section& message);

// ike-rekey: the two IKE_SAs.
struct IkeRekey {
  IkeSa from;
  IkeSa to;
};
std::optional<IkeRekey> ReadIkeRekey(const Section& message);

// ike-update: the IKE_SA as it was, and where it is from now on.
struct IkeUpdate {
  IkeSa ike;
  SocketAddress local;
  SocketAddress remote;
};
std::optional<IkeUpdate> ReadIkeUpdate(const Section& message);

// log and control-log.
struct LogLine {
  std::string group;    // "IKE", "CFG", …
  uint32_t ike_id = 0;  // 0: of none
  std::string text;
};
LogLine ReadLogLine(const Section& message);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_SAS_H_
