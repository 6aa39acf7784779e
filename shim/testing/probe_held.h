// Probes of UDP sockets that a broker holds.
#ifndef SHIM_TESTING_PROBE_HELD_H_
#define SHIM_TESTING_PROBE_HELD_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

// They send to the server's port, `port`, and to the one above.
std::map<std::string, std::function<void()>> HeldProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_HELD_H_
