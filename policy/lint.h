// What is legal in a policy and yet may surprise whoever wrote it.
#ifndef POLICY_LINT_H_
#define POLICY_LINT_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/parse.h"
#include "policy/policy.h"

namespace latchkey::policy {

// What is known beside the policy itself.
struct LintFacts {
  bool is_signed = false;
  // Whether everybody who may use the policy has the grant "bypass", by the file `system`; nothing
  // where that cannot be read.
  std::optional<bool> may_bypass = std::nullopt;
  std::string system = {};
};

// Returns warnings about `policy`, as read from `file`, in the order of their lines: rules that can
// never match because earlier ones cover them, peers that could be anybody, optional protection
// that needs a grant, reqid pins without a reqid, listeners that refuse the host's own clients,
// incoming connections by the client's port, rules that let datagrams in and give way to those for
// outgoing ones, a signature without a serial.
//
// pin = "auto" without a reqid is no surprise: such a latch is pinned to its very SAs wherever the
// key manager does not show that the reqid is its peer's for good.
std::vector<ParseError> Lint(const Policy& policy, std::string_view file,
                             const LintFacts& facts = {});

}  // namespace latchkey::policy

#endif  // POLICY_LINT_H_
