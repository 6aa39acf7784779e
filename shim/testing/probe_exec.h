// Probes of exec in its many forms, each with an environment that holds next to nothing.
#ifndef SHIM_TESTING_PROBE_EXEC_H_
#define SHIM_TESTING_PROBE_EXEC_H_

#include <functional>
#include <map>
#include <string>

namespace latchkey::testing {

// All of them, by name. "exec-CALL" starts this program again, by that call, as "environment" does.
std::map<std::string, std::function<void()>> ExecProbes();

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_PROBE_EXEC_H_
