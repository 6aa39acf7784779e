// Whether the shim is there, and whether a program can be run under it.
#ifndef TOOLS_LATCHKEY_DOCTOR_PROGRAM_H_
#define TOOLS_LATCHKEY_DOCTOR_PROGRAM_H_

#include <string>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

Findings ShimFindings();

// `name`, `search_path`: as for FindProgram(). `policies`: the folder with the policies for
// programs.
Findings ProgramFindings(const std::string& name, const char* search_path,
                         const std::string& policies);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_PROGRAM_H_
