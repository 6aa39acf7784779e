// Which IKE child would be negotiated for a flow that has no SA: as the broker chooses it.
#ifndef TOOLS_LATCHKEY_EXPLAIN_CHILD_H_
#define TOOLS_LATCHKEY_EXPLAIN_CHILD_H_

#include "policy/decide.h"
#include "policy/model/error.h"
#include "policy/model/flow.h"
#include "tools/latchkey/charon_lists.h"
#include "tools/latchkeyd/keymgr/vici/choose.h"

namespace latchkey::tool {

// `verdict` is one that protects. Errors: no-child, ambiguous-peer.
Result<broker::vici::Choice> ChildFor(const CharonLists& charon, const Flow& flow,
                                      const policy::Verdict& verdict);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_EXPLAIN_CHILD_H_
