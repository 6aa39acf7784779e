// Routing rules that use the bits of SO_MARK which are Latchkey's.
#ifndef TOOLS_LATCHKEY_DOCTOR_MARKS_H_
#define TOOLS_LATCHKEY_DOCTOR_MARKS_H_

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

// A rule of `ip rule` that looks at the mark.
struct MarkRule {
  bool v6 = false;
  bool inverted = false;  // "not fwmark"
  uint32_t priority = 0;
  uint32_t mark = 0;
  uint32_t mask = 0;

  bool operator==(const MarkRule&) const = default;
};

// Asks the kernel for the rules of both families that look at the mark; needs no privilege. The
// error says what failed, in words.
std::expected<std::vector<MarkRule>, std::string> ReadMarkRules();

// Reads one answer; nothing for a rule that does not look at the mark, and for what is no rule.
std::optional<MarkRule> ParseMarkRule(std::span<const uint8_t> message);

// `mark_mask`: what system.toml says.
Findings MarkFindings(const std::vector<MarkRule>& rules, uint32_t mark_mask);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_MARKS_H_
