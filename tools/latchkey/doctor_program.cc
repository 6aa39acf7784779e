#include "tools/latchkey/doctor_program.h"

#include "tools/latchkey/policy_file.h"
#include "tools/latchkey/program.h"
#include "tools/latchkey/siblings.h"

namespace latchkey::tool {

Findings ShimFindings() {
  const auto shim = FindShim();
  if (!shim) return {Bad(shim.error().text, "install Latchkey anew")};
  return {Ok("the shim is " + *shim)};
}

Findings ProgramFindings(const std::string& name, const char* search_path,
                         const std::string& policies) {
  const auto program = FindProgram(name, search_path);
  if (!program) return {Bad(program.error().text, "name a program that can be run")};
  const auto loadable = CheckLoadable(program->path, search_path);
  if (!loadable) {
    return {Bad(loadable.error().text,
                "use a dynamic x86-64 build, without set-id bits and file capabilities")};
  }
  Findings findings{loadable->empty()
                        ? Ok(program->absolute + " can be run under Latchkey")
                        : Note(*loadable + ": behind the fence it can be run, unlatched")};
  const auto policy = FindPolicy(policies, *program);
  if (!policy) {
    findings.push_back(Bad(policy.error().text, "until that is put right it needs -p"));
  } else if (*policy) {
    findings.push_back(Ok("its policy is " + (*policy)->name));
  } else {
    findings.push_back(Note(
        "no policy in " + policies + " names it: without -p its flows are the system's to judge",
        "name it in the `program` of one where it is to have its own"));
  }
  return findings;
}

}  // namespace latchkey::tool
