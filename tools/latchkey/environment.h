// The environment a latched program starts with.
#ifndef TOOLS_LATCHKEY_ENVIRONMENT_H_
#define TOOLS_LATCHKEY_ENVIRONMENT_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace latchkey::tool {

// Returns `inherited` (null-terminated, "NAME=value") with the shim put before whatever LD_PRELOAD
// held, LATCHKEY_SOCKET and LATCHKEY_TOKEN (lower-case hexadecimal) set, LATCHKEY_POLICY and older
// values of all these gone. Other shims of Latchkey in LD_PRELOAD are taken out: two would ask the
// broker twice. `shim` must satisfy CanPreload.
std::vector<std::string> LatchedEnvironment(const char* const* inherited, const std::string& shim,
                                            const std::string& socket,
                                            std::span<const uint8_t> token);

// False when LD_PRELOAD cannot name this file: its elements end at blanks and colons (ld.so(8)).
bool CanPreload(const std::string& path);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_ENVIRONMENT_H_
