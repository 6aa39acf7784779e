// Finds, reads and parses the policy of a program, before the broker does so again.
#ifndef TOOLS_LATCHKEY_POLICY_FILE_H_
#define TOOLS_LATCHKEY_POLICY_FILE_H_

#include <optional>
#include <string>

#include "policy/policy.h"
#include "tools/latchkey/program.h"
#include "tools/latchkey/refusal.h"
#include "tools/unique_fd.h"

namespace latchkey::tool {

inline constexpr char kPolicyFolder[] = "/etc/latchkey/policy.d";

struct PolicyFile {
  std::string name;
  UniqueFd fd;         // at offset 0, for the broker
  UniqueFd signature;  // of NAME.minisig, where there is one
  policy::Policy policy;
};

// Reads and parses the file, and opens its signature (which the broker verifies). Refuses with 125
// and one line per error ("FILE:LINE:COL: …").
Outcome<PolicyFile> LoadPolicy(const std::string& name);

// Returns the policy in `folder` (*.toml) whose `program` list holds `program`; nothing when none
// does or the folder is not there. Refuses with 125 when two do, and when one of the files cannot
// be read or has errors: it might be the one that was meant.
Outcome<std::optional<PolicyFile>> FindPolicy(const std::string& folder, const Program& program);

// Returns the name under which the policy's list holds `program`: the same path, or one that
// differs only in symbolic links of its folder (/bin and /usr/bin). Nothing when the list does not
// hold it; with an empty list, its absolute path.
std::optional<std::string> ListedAs(const policy::Policy& policy, const Program& program);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_POLICY_FILE_H_
