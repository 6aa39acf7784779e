// Which rule a flow falls under, in words, for `latchkey why`.
#ifndef TOOLS_LATCHKEYD_SERVER_CAUSE_H_
#define TOOLS_LATCHKEYD_SERVER_CAUSE_H_

#include <string>

#include "policy/model/flow.h"
#include "policy/policy.h"
#include "policy/system_policy.h"

namespace latchkey::broker {

// The names of the files, for messages; `policy`: empty without one.
struct CauseFiles {
  std::string policy;
  std::string system;
};

// Returns "FILE:LINE: rule \"NAME\"", "FILE: default", or, where the system decides, what of it
// asks most; a program's own request is "request", with the rule of its policy after it. Empty
// where the flow has no peer: a socket falls under no rule, its flows do. `rule`: the one that
// decided, where that is known; the first that matches may be another once a flow has its port.
std::string CauseOf(const policy::Policy& policy, const CauseFiles& files,
                    const policy::System& system, const Flow& flow,
                    const policy::Rule* rule = nullptr);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_CAUSE_H_
