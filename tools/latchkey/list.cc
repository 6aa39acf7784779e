#include <unistd.h>

#include <map>
#include <string>

#include "tools/latchkey/client.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/spd_table.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

// What is to be said of a session's fence: that there is none, or nothing else.
std::string FenceText(const wire::FenceRecord& fence) {
  const std::string program = Printable(fence.program);
  switch (fence.state) {
    case wire::FenceState::kUnasked:
      return "not fenced: " + program + (fence.launched != 0 ? ": --no-fence" : ": run by hand");
    case wire::FenceState::kLacking:
      return "not fenced: " + program + ": " + Printable(fence.why);
    case wire::FenceState::kStands:
      return fence.unlatched != 0 ? "fenced, not latched: " + program : "";
    case wire::FenceState::kOver:
      break;
  }
  return {};
}

// Many sessions of one program are one line.
void TellFences(const std::vector<wire::FenceRecord>& fences) {
  std::map<std::string, int> lines;
  for (const wire::FenceRecord& fence : fences) {
    if (fence.id != 0) ++lines[FenceText(fence)];
  }
  lines.erase("");
  for (const auto& [line, count] : lines) {
    Report({kExitYes, count == 1 ? line : line + " (" + std::to_string(count) + " sessions)"});
  }
}

}  // namespace

int List(const QueryOptions& options) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});
  if (brokers.empty()) return kExitNoBroker;

  std::vector<Latch> latches;
  std::vector<wire::FenceRecord> sessions;
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
      sessions.insert(sessions.end(), fences->begin(), fences->end());
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
  return Print(options.json ? ListJson(latches, sessions) : ListTable(latches));
}

}  // namespace latchkey::tool
