#include "tools/latchkey/client.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {

int Show(const QueryOptions& options) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});
  if (brokers.empty()) return kExitNoBroker;

  std::optional<Latch> found;
  std::string where;
  for (Broker& broker : brokers) {
    auto latch = broker.client.Show(options.id);
    if (!latch) return Report({kExitNoBroker, broker.path + ": " + latch.error()});
    if (!*latch) continue;
    // Brokers count for themselves: showing either of two would be a guess.
    if (found) {
      return Report({kExitNo, "latch " + std::to_string(options.id) + " is known to " + where +
                                  " and " + broker.path + ": choose one with --socket"});
    }
    found = std::move(*latch);
    where = broker.path;
  }
  if (!found) return Report({kExitNo, "no latch " + std::to_string(options.id)});
  return Print(options.json ? ShowJson(*found) : ShowText(*found));
}

}  // namespace latchkey::tool
