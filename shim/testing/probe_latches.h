// Probes of the cmsg LATCHKEY_LATCH.
#ifndef SHIM_TESTING_PROBE_LATCHES_H_
#define SHIM_TESTING_PROBE_LATCHES_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> LatchProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_LATCHES_H_
