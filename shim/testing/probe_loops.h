// Event loops: a non-blocking connect, then what comes, with every wake-up counted.
#ifndef SHIM_TESTING_PROBE_LOOPS_H_
#define SHIM_TESTING_PROBE_LOOPS_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> LoopProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_LOOPS_H_
