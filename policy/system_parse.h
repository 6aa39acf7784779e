// Reads /etc/latchkey/system.toml.
#ifndef POLICY_SYSTEM_PARSE_H_
#define POLICY_SYSTEM_PARSE_H_

#include <expected>
#include <string_view>
#include <vector>

#include "policy/parse.h"
#include "policy/system_policy.h"

namespace latchkey::policy {

// Parses `text`; errors as in Parse().
std::expected<SystemPolicy, std::vector<ParseError>> ParseSystem(std::string_view text,
                                                                 std::string_view file);

}  // namespace latchkey::policy

#endif  // POLICY_SYSTEM_PARSE_H_
