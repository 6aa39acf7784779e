#include "tools/latchkey/find_latch.h"

#include <optional>
#include <utility>
#include <vector>

#include "tools/latchkey/verbs.h"

namespace latchkey::tool {

Outcome<FoundLatch> FindLatch(const std::string& socket, uint64_t id) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(socket, problems);
  if (brokers.empty()) {
    std::string lines;
    for (const std::string& problem : problems) lines += (lines.empty() ? "" : "\n") + problem;
    return Refuse(kExitNoBroker, lines);
  }
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});

  std::optional<FoundLatch> found;
  for (Broker& broker : brokers) {
    auto latch = broker.client.Show(id);
    if (!latch) return Refuse(kExitNoBroker, broker.path + ": " + latch.error());
    if (!*latch) continue;
    if (found) {
      return Refuse(kExitNo, "latch " + std::to_string(id) + " is known to " + found->broker.path +
                                 " and " + broker.path + ": choose one with --socket");
    }
    found = FoundLatch{std::move(broker), std::move(**latch)};
  }
  if (!found) return Refuse(kExitNo, "no latch " + std::to_string(id));
  return std::move(*found);
}

}  // namespace latchkey::tool
