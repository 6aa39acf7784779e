// A connection for one flow alone (sharing = "unique"), made after a configured one. Pure.
//
// list-conns does not show everything that makes up a configuration. What would be lost in a copy,
// and decides who a peer may be, makes it no copy: certificates and CAs that are required, groups,
// EAP. Not shown at all are the IKE proposals and constraints on key sizes: a copy has charon's
// defaults.
#ifndef TOOLS_LATCHKEYD_KEYMGR_VICI_OWN_H_
#define TOOLS_LATCHKEYD_KEYMGR_VICI_OWN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/algorithms.h"
#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "tools/latchkeyd/keymgr/vici/choose.h"
#include "tools/latchkeyd/keymgr/vici/conns.h"

namespace latchkey::broker::vici {

// The name of such a connection, and of its one child: a number that makes it unlike all others,
// and the flow.
std::string OwnName(uint32_t number, const Flow& flow);
// What a flow's names end with.
std::string FlowText(const Flow& flow);
// The flow's text in such a name; nothing where it is another's.
std::optional<std::string> FlowOfOwn(std::string_view name);

// The suites of a set in charon's words, longest keys first, each for itself; empty where charon
// has no word for any of them. A rekey may do without a key exchange of its own, or with one.
std::vector<std::string> OwnProposals(const policy::AlgorithmSet& algorithms, bool esn);

// The message of load-conn, like `conn` but for the name, the flow and the suites. no-child where
// it cannot be made.
Result<Section> OwnConn(const ConnConfig& conn, const ChildConfig& child, const Wanted& wanted,
                        const std::string& name, uint32_t number);

}  // namespace latchkey::broker::vici

#endif  // TOOLS_LATCHKEYD_KEYMGR_VICI_OWN_H_
