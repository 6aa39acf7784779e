// Roads into and out of a socket that are easily forgotten.
#ifndef SHIM_TESTING_PROBE_ROADS_H_
#define SHIM_TESTING_PROBE_ROADS_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> RoadProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_ROADS_H_
