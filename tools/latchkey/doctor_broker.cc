#include "tools/latchkey/doctor_broker.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "tools/latchkey/client.h"

namespace latchkey::tool {
namespace {

Finding Judge(const BrokerFacts& broker) {
  switch (broker.error) {
    case 0:
      break;
    case ENOENT:
    case ECONNREFUSED:
      return Bad("no broker at " + broker.path,
                 "start latchkeyd; until then only root's latchkey run can start a private one");
    default:
      return Bad(broker.path + ": " + std::strerror(broker.error),
                 "let everybody reach the socket (mode 0666), and its folder");
  }
  if (!broker.trouble.empty()) {
    return Bad(broker.path + ": " + broker.trouble,
               "restart latchkeyd, of the same version as this program");
  }
  if (broker.our_namespace == false) {
    return Bad("the broker at " + broker.path + " serves another network namespace",
               "start a latchkeyd in this one");
  }
  return Ok("a broker answers at " + broker.path + " (protocol " + std::to_string(wire::kVersion) +
            ", " +
            (broker.our_namespace ? "of this network namespace)"
                                  : "of which network namespace only root can see)"));
}

// Why the broker can put up no fence; empty when it can, nothing when it does not say.
std::optional<std::string> FenceLack(Client& client) {
  const auto records = client.Fences();
  if (!records || records->empty() || records->back().id != 0) return std::nullopt;
  const wire::FenceRecord& last = records->back();
  if (last.state != wire::FenceState::kLacking) return "";
  return std::string(last.why);
}

}  // namespace

std::vector<BrokerFacts> ReachBrokers(const std::string& named) {
  std::vector<BrokerFacts> brokers;
  for (const std::string& path : BrokerSockets(named)) {
    BrokerFacts facts;
    facts.path = path;
    auto client = Client::Connect(path);
    if (client) {
      facts.our_namespace = client->ServesThisNamespace();
      // No latch has this id; the answer shows that we understand each other.
      if (const auto none = client->Show(0); !none) facts.trouble = none.error();
      if (facts.trouble.empty()) facts.no_fence = FenceLack(*client);
    } else {
      facts.error = client.error();
    }
    brokers.push_back(std::move(facts));
  }
  return brokers;
}

Findings BrokerFindings(const std::vector<BrokerFacts>& brokers) {
  Findings findings;
  for (size_t i = 0; i < brokers.size(); ++i) {
    const BrokerFacts& broker = brokers[i];
    // Private ones come and go, and those of other namespaces are none of ours.
    const bool gone = broker.error == ENOENT || broker.error == ECONNREFUSED;
    if (i > 0 && (gone || broker.our_namespace == false)) continue;
    findings.push_back(Judge(broker));
    if (!broker.no_fence) continue;
    if (broker.no_fence->empty()) {
      findings.push_back(Ok("it can fence programs in"));
    } else {
      findings.push_back(
          Note("it fences no program in (" + *broker.no_fence +
                   "): what gets past the shim goes by the SPD, and static programs are refused",
               "run a kernel with cgroup v2 and CONFIG_CGROUP_BPF, and latchkeyd with CAP_BPF and "
               "a /sys/fs/cgroup that it may write to"));
    }
  }
  return findings;
}

}  // namespace latchkey::tool
