// Reads the system policy's file from where it lies, if it lies there safely.
#ifndef TOOLS_LATCHKEYD_SERVER_SYSTEM_FILE_H_
#define TOOLS_LATCHKEYD_SERVER_SYSTEM_FILE_H_

#include <cstdint>
#include <string>

#include "policy/model/error.h"
#include "policy/system_policy.h"

namespace latchkey::broker {

// Reads the file at `path`; an empty policy where there is none. bad-policy for one that is not
// root's, that others may write to, or that has errors: all of them, a line each.
Result<policy::SystemPolicy> ReadSystemFile(const std::string& path);

// The guard bit of a mask: its top bit.
uint32_t GuardBit(uint32_t mark_mask);
// The bits of a mask that tag SAs: those below the guard bit.
uint32_t TagMask(uint32_t mark_mask);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_SYSTEM_FILE_H_
