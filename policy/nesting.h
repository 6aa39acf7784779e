// Looks at a TOML text before the parser does: refuses what would make the parser, or the
// destructor of what it built, recurse too deep.
#ifndef POLICY_NESTING_H_
#define POLICY_NESTING_H_

#include <optional>
#include <string>
#include <string_view>

namespace latchkey::policy {

struct NestingFault {
  int line = 0;    // from 1
  int column = 0;  // from 1, in characters
  std::string text;
};

// Returns the first place of `text` with more than `limit` brackets open or more than `limit` dots
// in one key (each part of a dotted key is a table within the one before), with a control character
// that TOML allows nowhere (on it the parser's idea of a line could differ from ours), or with a
// character beyond ASCII outside strings and comments: TOML has no use for one there, and toml++
// 3.3.0 has undefined behaviour on some. Likewise a quote or bracket in the middle of a value: it
// opens nothing. Linear time, no recursion.
std::optional<NestingFault> FindNestingFault(std::string_view text, int limit);

}  // namespace latchkey::policy

#endif  // POLICY_NESTING_H_
