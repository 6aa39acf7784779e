// What system.toml grants to whoever may use a policy, for `latchkey check`.
#ifndef TOOLS_LATCHKEY_CHECK_GRANTS_H_
#define TOOLS_LATCHKEY_CHECK_GRANTS_H_

#include <optional>
#include <string>

#include "policy/lint.h"
#include "policy/system_policy.h"
#include "tools/latchkey/policy_file.h"

namespace latchkey::tool {

// Returns what the system's file says; nothing of one that is not there, or cannot be read.
std::optional<policy::SystemPolicy> ReadSystem(const std::string& name);

// Returns what Lint() wants to know. A grant counts when everybody has it who may use the policy:
// its `users`, or all but root; or when it comes with the signature that lies beside the policy.
// A file `system` that is not there, or cannot be read, says nothing.
policy::LintFacts FactsOf(const PolicyFile& file, const std::string& system);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_CHECK_GRANTS_H_
