// The system policy file, as far as this version enforces it: language version and mark mask.
// Anything else in it is refused, never ignored: a site that writes a floor down must have it.
#ifndef TOOLS_LATCHKEYD_SERVER_SYSTEM_FILE_H_
#define TOOLS_LATCHKEYD_SERVER_SYSTEM_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "policy/model/error.h"

namespace latchkey::broker {

inline constexpr uint32_t kDefaultMarkMask = 0xffff0000;

// Reads `text`, the content of `name`; returns mark_mask. bad-policy for what is no TOML, for other
// keys ("not supported yet") and for a mask of no bits or of bits apart.
Result<uint32_t> ParseSystemFile(std::string_view text, const std::string& name);

// Reads the file at `path`; the default where there is none. bad-policy too for one that is not
// root's or that others may write to.
Result<uint32_t> ReadSystemFile(const std::string& path);

// The guard bit of a mask: its top bit.
uint32_t GuardBit(uint32_t mark_mask);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_SYSTEM_FILE_H_
