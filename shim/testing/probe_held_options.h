// Probes of what the program of a held UDP socket may not undo by options and control data.
#ifndef SHIM_TESTING_PROBE_HELD_OPTIONS_H_
#define SHIM_TESTING_PROBE_HELD_OPTIONS_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

std::map<std::string, std::function<void()>> HeldOptionProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_HELD_OPTIONS_H_
