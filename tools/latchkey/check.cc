#include <string>

#include "policy/lint.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

void Warn(const PolicyFile& file) {
  for (const policy::ParseError& warning :
       policy::Lint(file.policy, file.name, static_cast<bool>(file.signature))) {
    const std::string where =
        warning.file + (warning.line == 0 ? "" : ":" + std::to_string(warning.line));
    Report({kExitYes, where + ": warning: " + warning.text});
  }
}

}  // namespace

int Check(const std::vector<std::string>& files) {
  int exit = kExitYes;
  for (const std::string& name : files) {
    const auto file = LoadPolicy(name);
    if (!file) {
      exit = Report({kExitNo, file.error().text});
      continue;
    }
    Warn(*file);
    if (Print(name + ": ok\n") != kExitYes) exit = kExitNo;
  }
  return exit;
}

}  // namespace latchkey::tool
