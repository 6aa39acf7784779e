// Whether a network card does the work of SAs, as `latchkey doctor` sees it.
#ifndef TOOLS_LATCHKEY_DOCTOR_OFFLOAD_H_
#define TOOLS_LATCHKEY_DOCTOR_OFFLOAD_H_

#include <cstddef>
#include <expected>
#include <string>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

// How many of the kernel's SAs are worked on by whom.
struct OffloadFacts {
  size_t none = 0;
  size_t crypto = 0;  // a card ciphers, and the kernel does the rest
  size_t packet = 0;  // a card does all
};

// Reads the SAD, which takes CAP_NET_ADMIN. An error in the kernel's words.
std::expected<OffloadFacts, std::string> ReadOffload();

Findings OffloadFindings(const OffloadFacts& facts);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_OFFLOAD_H_
