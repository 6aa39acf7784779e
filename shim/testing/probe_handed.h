// Probes of listeners that a program is handed.
#ifndef SHIM_TESTING_PROBE_HANDED_H_
#define SHIM_TESTING_PROBE_HANDED_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

// "handed": listens, and starts this program again with the listener handed to it as
// sd_listen_fds(3) has it; three clients come, and the first that accept() shows is told by its
// number. "handed-other": the variables are another process's. "handed-odd": they say that there
// are more, after a socket that does not listen. "handed-bad": they are no numbers.
std::map<std::string, std::function<void()>> HandedProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_HANDED_H_
