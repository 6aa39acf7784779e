#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {

int Check(const std::vector<std::string>& files) {
  int exit = kExitYes;
  for (const std::string& name : files) {
    if (const auto file = LoadPolicy(name); !file) {
      exit = Report({kExitNo, file.error().text});
    } else if (Print(name + ": ok\n") != kExitYes) {
      exit = kExitNo;
    }
  }
  return exit;
}

}  // namespace latchkey::tool
