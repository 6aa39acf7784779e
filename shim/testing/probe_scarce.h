// Probes that are short of descriptors: their standard streams closed, or at their limit.
#ifndef SHIM_TESTING_PROBE_SCARCE_H_
#define SHIM_TESTING_PROBE_SCARCE_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> ScarceProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_SCARCE_H_
