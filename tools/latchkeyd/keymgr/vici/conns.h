// What charon is configured to do (list-conns), as plain structs, and its traffic selectors. Pure.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_CONNS_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_CONNS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/model/address.h"
#include "policy/model/protection.h"
#include "tools/latchkeyd/keymgr/vici/message.h"

namespace latchkey::broker::vici {

// A traffic selector of a configuration.
struct TrafficSelector {
  bool dynamic = false;  // the addresses of the IKE_SA itself; low and high are then empty
  Address low;           // a range, both ends in it
  Address high;
  uint8_t protocol = 0;  // 0: any
  PortRange ports;       // 0-65535: any

  bool operator==(const TrafficSelector&) const = default;
};

// Reads what charon prints: "dynamic", "10.0.0.0/8", "10.0.0.1..10.0.0.9", each also with
// "[tcp/5432]", "[tcp]", "[0/80-90]", "[udp/domain]". Names of protocols and services are looked up
// in the same local files as charon's own are. Nothing for what it cannot read, and for OPAQUE
// ports: such a selector covers no flow of ours.
std::optional<TrafficSelector> ReadSelector(std::string_view text);

struct ChildConfig {
  std::string name;
  Mode mode = Mode::kUnknown;  // pass and drop: unknown
  std::vector<TrafficSelector> local;
  std::vector<TrafficSelector> remote;
  std::string rekey_time = {};  // in seconds

  bool operator==(const ChildConfig&) const = default;
};

// One round of authentication.
struct AuthConfig {
  std::string auth;  // pubkey | psk | eap | xauth; empty: any
  std::string id;    // empty: none configured
  std::string ca_id = {};
  std::string revocation = {};  // GOOD, SKIPPED; empty: as it comes
  bool certs = false;           // certificates are named
  std::string bound = {};       // the first of what else the round is bound to; empty: nothing

  bool operator==(const AuthConfig&) const = default;
};

struct ConnConfig {
  std::string name;
  std::string version;                             // IKEv1 | IKEv2 | IKEv1/2
  std::string rekey_time, reauth_time, dpd_delay;  // in seconds
  bool has_ppk = false;
  std::vector<std::string> local_addresses;  // addresses, ranges, host names, "%any"
  std::vector<std::string> remote_addresses;
  std::vector<AuthConfig> local;
  std::vector<AuthConfig> remote;
  std::vector<ChildConfig> children;

  bool operator==(const ConnConfig&) const = default;

  // How the peer proves who it is: the last round's class, IKEv1's XAuth left out. Empty: any.
  std::string RemoteAuth() const;
  // The one identity that a peer of this connection can have: one exact id for all rounds, none of
  // them EAP. Empty where the configuration leaves a choice.
  std::string FixedRemoteId() const;
  // The id as configured, of the last round that has one; empty: none.
  std::string RemoteId() const;
};

// Reads a list-conn message; nothing where it is none.
std::optional<ConnConfig> ReadConn(const Section& message);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_CONNS_H_
