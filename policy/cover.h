// Which rules leave nothing to a later one.
#ifndef POLICY_COVER_H_
#define POLICY_COVER_H_

#include <cstddef>
#include <vector>

#include "policy/policy.h"

namespace latchkey::policy {

// Returns the rules before rules[which], places in `rules`, that together match every flow that it
// matches; empty when it has a flow left, or when that would take too long to say (`steps`, counted
// down: one for each pair of regions that is compared). One rule that is enough is preferred.
std::vector<size_t> CoveredBy(const std::vector<Rule>& rules, size_t which, size_t& steps);

}  // namespace latchkey::policy

#endif  // POLICY_COVER_H_
