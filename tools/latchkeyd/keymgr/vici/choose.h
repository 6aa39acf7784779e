// Which configured child to initiate for a flow. Pure.
//
// Among the children that cover the flow the one that covers the least wins; several that cover as
// little, for peers of different names, are ambiguous-peer. Host names among a connection's
// addresses are not resolved (that can wait for a name server): they fit where a rule names the
// child, and nowhere else.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_CHOOSE_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_CHOOSE_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "policy/algorithms.h"
#include "policy/decide.h"
#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "policy/model/protection.h"
#include "tools/latchkeyd/keymgr/vici/conns.h"

namespace latchkey::broker::vici {

// What an AcquireRequest asks, in a form that outlives the call.
struct Wanted {
  Flow flow;                    // the local address may be any, its port 0
  std::string child;            // by name; empty: found by the flow
  std::vector<PeerSpec> peers;  // each must allow the peer
  std::optional<Mode> mode;     // nothing: transport or tunnel
  // A child of the flow's own is wanted, of these suites.
  bool unique = false;
  policy::AlgorithmSet algorithms = {};
  bool esn = false;
};

// `child`: by name; empty: found by the flow.
Wanted WantedFor(const Flow& flow, const std::string& child, const policy::Demand& demand);

struct Choice {
  std::string ike;
  std::string child;

  auto operator<=>(const Choice&) const = default;
};

// Returns the one address that every IKE_SA now up for the configuration `ike` ends at; nothing
// where there is none, or several. charon takes such an IKE_SA for a new child, so a configuration
// without an address of the peer ("%any") can be initiated too.
using PeerOf = std::function<std::optional<Address>(const std::string& ike)>;

// Connections of one flow's own (own.h) are left out. Errors: no-child (the value says why the
// nearest one does not do), ambiguous-peer.
Result<Choice> Choose(const std::vector<ConnConfig>& conns, const Wanted& wanted,
                      const PeerOf& peer_of);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_CHOOSE_H_
