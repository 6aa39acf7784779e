#include <string>

#include "policy/lint.h"
#include "tools/latchkey/check_grants.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

void Warn(const PolicyFile& file, const std::string& system) {
  for (policy::ParseError& warning : policy::Lint(file.policy, file.name, FactsOf(file, system))) {
    warning.text = "warning: " + warning.text;
    Report({kExitYes, warning.ToString()});
  }
}

}  // namespace

int Check(const CheckOptions& options) {
  int exit = kExitYes;
  for (const std::string& name : options.files) {
    const auto file = LoadPolicy(name);
    if (!file) {
      exit = Report({kExitNo, file.error().text});
      continue;
    }
    Warn(*file, options.system);
    if (Print(name + ": ok\n") != kExitYes) exit = kExitNo;
  }
  return exit;
}

}  // namespace latchkey::tool
