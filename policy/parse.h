// Reads application policies (TOML) into Policy.
#ifndef POLICY_PARSE_H_
#define POLICY_PARSE_H_

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "policy/policy.h"

namespace latchkey::policy {

struct ParseError {
  std::string file;
  int line = 0;      // from 1; of what is about the file as a whole, 1
  int column = 0;    // from 1
  std::string text;  // what was found, quoted, and what was expected

  std::string ToString() const;  // "app.toml:12:8: …"
};

// Parses `text`, the content of `file` (a name for messages only). Reports every error of the file
// in one run, in the order of their lines. Texts above 1 MiB are refused. Unknown keys are
// errors.
std::expected<Policy, std::vector<ParseError>> Parse(std::string_view text, std::string_view file);

}  // namespace latchkey::policy

#endif  // POLICY_PARSE_H_
