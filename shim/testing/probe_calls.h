// Probes of the rarer calls, and of the common ones made by their numbers.
#ifndef SHIM_TESTING_PROBE_CALLS_H_
#define SHIM_TESTING_PROBE_CALLS_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> CallProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_CALLS_H_
