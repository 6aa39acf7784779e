// The files in /etc/latchkey: whose they are, and whether they parse.
#ifndef TOOLS_LATCHKEY_DOCTOR_FILES_H_
#define TOOLS_LATCHKEY_DOCTOR_FILES_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

struct FilePlaces {
  std::string folder = "/etc/latchkey";  // with system.toml, pad.toml, policy.d
  uid_t owner = 0;                       // whose it all must be
};

// Looks at each file that is there. `mark_mask` gets what system.toml says, and stays as it is when
// that cannot be read.
Findings FileFindings(const FilePlaces& places, uint32_t& mark_mask);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_FILES_H_
