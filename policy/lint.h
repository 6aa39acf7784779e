// What is legal in a policy and yet may surprise whoever wrote it.
#ifndef POLICY_LINT_H_
#define POLICY_LINT_H_

#include <string_view>
#include <vector>

#include "policy/parse.h"
#include "policy/policy.h"

namespace latchkey::policy {

// Returns warnings about `policy`, as read from `file`, in the order of their lines: rules that can
// never match because an earlier one covers them, peers that could be anybody, optional protection
// that needs a grant, reqid pins without a reqid, listeners that refuse the host's own clients, a
// signature without a serial.
std::vector<ParseError> Lint(const Policy& policy, std::string_view file, bool is_signed);

}  // namespace latchkey::policy

#endif  // POLICY_LINT_H_
