// The brokers, as `latchkey doctor` sees them.
#ifndef TOOLS_LATCHKEY_DOCTOR_BROKER_H_
#define TOOLS_LATCHKEY_DOCTOR_BROKER_H_

#include <optional>
#include <string>
#include <vector>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

struct BrokerFacts {
  std::string path;
  int error = 0;                      // errno of connecting to it
  std::string trouble;                // what came of a question; "": an answer
  std::optional<bool> our_namespace;  // nothing: not to be seen
  // Why it can put up no fence; "": it can; nothing: it did not say.
  std::optional<std::string> no_fence = std::nullopt;
};

// Asks each of the sockets that `list` would ask, the one that counts first.
std::vector<BrokerFacts> ReachBrokers(const std::string& named);

Findings BrokerFindings(const std::vector<BrokerFacts>& brokers);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_BROKER_H_
