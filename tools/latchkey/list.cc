#include "tools/latchkey/client.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {

int List(const QueryOptions& options) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});
  if (brokers.empty()) return kExitNoBroker;

  std::vector<Latch> latches;
  for (Broker& broker : brokers) {
    uint64_t last = 0;
    while (true) {
      auto latch = broker.client.Next(last);
      // Half a list would read as "no more latches": none is printed.
      if (!latch) return Report({kExitNoBroker, broker.path + ": " + latch.error()});
      if (!*latch) break;
      last = (*latch)->id;
      latches.push_back(std::move(**latch));
    }
  }
  return Print(options.json ? ListJson(latches) : ListTable(latches));
}

}  // namespace latchkey::tool
