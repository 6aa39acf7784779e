// Calls at moments when nobody expects them: before constructors, in signal handlers, at the end.
#ifndef SHIM_TESTING_PROBE_MOMENTS_H_
#define SHIM_TESTING_PROBE_MOMENTS_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> MomentProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_MOMENTS_H_
