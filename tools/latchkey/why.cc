#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/latchkey/client.h"
#include "tools/latchkey/latch_json.h"
#include "tools/latchkey/latch_table.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

using broker::Incident;
using Json = nlohmann::json;

std::string EndText(const SocketAddress& end) {
  return end.address.family == Family::kNone ? "-" : end.ToString();
}

std::string Line(const Incident& incident) {
  const char* arrow = incident.flow.direction == Direction::kIn ? "<-" : "->";
  std::string text = fmt::format(
      "{} {} {} ", Rfc3339(incident.time),
      incident.latch != 0 ? fmt::format("broke latch {}", incident.latch) : std::string("refused"),
      wire::ReasonWord(incident.reason));
  if (incident.flow.local.address.family != Family::kNone ||
      incident.flow.remote.address.family != Family::kNone) {
    text += fmt::format("{} {} {} {} ", ProtocolWord(incident.flow.protocol),
                        EndText(incident.flow.local), arrow, EndText(incident.flow.remote));
  }
  text += fmt::format("program {} pid {}", Printable(incident.program), incident.pid);
  if (!incident.policy.empty()) text += " policy " + Printable(incident.policy);
  if (!incident.rule.empty()) text += " by " + Printable(incident.rule);
  if (!incident.detail.empty()) text += ": " + Printable(incident.detail);
  return text + "\n";
}

Json EndJson(const SocketAddress& end) {
  if (end.address.family == Family::kNone) return nullptr;
  return {{"address", end.address.ToString()}, {"port", end.port}};
}

Json ToJson(const Incident& incident) {
  return {{"time", Rfc3339(incident.time)},
          {"what", incident.latch != 0 ? "broke" : "refused"},
          {"latch", incident.latch != 0 ? Json(incident.latch) : Json(nullptr)},
          {"reason", wire::ReasonWord(incident.reason)},
          {"direction", incident.flow.direction == Direction::kIn ? "in" : "out"},
          {"protocol", ProtocolWord(incident.flow.protocol)},
          {"local", EndJson(incident.flow.local)},
          {"remote", EndJson(incident.flow.remote)},
          {"program", incident.program},
          {"pid", incident.pid},
          {"uid", incident.uid},
          {"policy", incident.policy},
          {"rule", incident.rule.empty() ? Json(nullptr) : Json(incident.rule)},
          {"detail", incident.detail}};
}

}  // namespace

int Why(const QueryOptions& options) {
  std::vector<std::string> problems;
  std::vector<Broker> brokers = ConnectAll(options.socket, problems);
  for (const std::string& problem : problems) Report({kExitNoBroker, problem});
  if (brokers.empty()) return kExitNoBroker;
  std::string text;
  Json list = Json::array();
  for (Broker& broker : brokers) {
    const auto incidents = broker.client.Incidents();
    if (!incidents) return Report({kExitNoBroker, broker.path + ": " + incidents.error()});
    for (const Incident& incident : *incidents) {
      if (options.id != 0 && incident.pid != options.id && incident.latch != options.id) continue;
      text += Line(incident);
      list.push_back(ToJson(incident));
    }
  }
  const bool none = list.empty();
  if (options.json) {
    const Json document = {{"schema", 1}, {"incidents", std::move(list)}};
    text = document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  } else if (none) {
    return Report(
        {kExitNo,
         options.id == 0
             ? std::string("nothing was refused or broken")
             : fmt::format("nothing of process or latch {} was refused or broken", options.id)});
  }
  const int printed = Print(text);
  return none ? kExitNo : printed;
}

}  // namespace latchkey::tool
