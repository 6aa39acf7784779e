#include <unistd.h>

#include <string>

#include "tools/latchkey/client.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/spd_table.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

// Programs behind no fence, though one was asked for; and those behind one alone.
void TellFences(const std::vector<wire::FenceRecord>& fences) {
  for (const wire::FenceRecord& fence : fences) {
    if (fence.id == 0) continue;
    const std::string program = Printable(fence.program);
    if (fence.state == wire::FenceState::kLacking) {
      Report({kExitYes, "not fenced: " + program + ": " + Printable(fence.why)});
    } else if (fence.state == wire::FenceState::kStands && fence.unlatched != 0) {
      Report({kExitYes, "fenced, not latched: " + program});
    }
  }
}

}  // namespace

int List(const QueryOptions& options) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});
  if (brokers.empty()) return kExitNoBroker;

  std::vector<Latch> latches;
  std::vector<broker::OwnedEntry> spd;
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
    if (const auto fences = broker.client.Fences(); fences) {
      TellFences(*fences);
    } else {
      return Report({kExitNoBroker, broker.path + ": " + fences.error()});
    }
    if (!options.spd) continue;
    if (geteuid() != 0) return Report({kExitNo, "the SPD is root's to see: run as root"});
    auto entries = broker.client.Spd();
    if (!entries) return Report({kExitNoBroker, broker.path + ": " + entries.error()});
    spd.insert(spd.end(), entries->begin(), entries->end());
  }
  if (options.spd) return Print(options.json ? SpdJson(spd, latches) : SpdTable(spd, latches));
  return Print(options.json ? ListJson(latches) : ListTable(latches));
}

}  // namespace latchkey::tool
