#include <string>

#include "policy/lint.h"
#include "policy/system_policy.h"
#include "tools/latchkey/check_grants.h"
#include "tools/latchkey/name_servers.h"
#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

void Warn(const PolicyFile& file, const CheckOptions& options) {
  for (policy::ParseError& warning :
       policy::Lint(file.policy, file.name, FactsOf(file, options.system))) {
    warning.text = "warning: " + warning.text;
    Report({kExitYes, warning.ToString()});
  }
  const policy::SystemPolicy system = ReadSystem(options.system).value_or(policy::SystemPolicy());
  const std::string hint =
      NameServerHint(FencedOff(ReadNameServers(options.resolv_conf), file.policy, system));
  if (!hint.empty()) Report({kExitYes, file.name + ": warning: " + hint});
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
    Warn(*file, options);
    if (Print(name + ": ok\n") != kExitYes) exit = kExitNo;
  }
  return exit;
}

}  // namespace latchkey::tool
