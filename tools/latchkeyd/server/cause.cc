#include "tools/latchkeyd/server/cause.h"

namespace latchkey::broker {
namespace {

std::string At(const std::string& file, const policy::Rule& rule) {
  return file + ":" + std::to_string(rule.line) + ": rule \"" + rule.name + "\"";
}

std::string SystemCause(const std::string& file, const policy::System& system, const Flow& flow) {
  const policy::SystemAsk ask = policy::AskSystem(system.file, system.spd, flow);
  std::string text;
  if (ask.rule != nullptr) text = At(file, *ask.rule);
  if (ask.spd != nullptr) {
    text += (text.empty() ? "" : ", ") + ("SPD entry " + std::to_string(ask.spd->index));
  }
  return text;
}

}  // namespace

std::string CauseOf(const policy::Policy& policy, const CauseFiles& files,
                    const policy::System& system, const Flow& flow, const policy::Rule* rule) {
  if (flow.remote.address.family == Family::kNone) return {};
  const bool asked = policy.floor != nullptr;  // by the program itself
  const std::string file = asked ? "request" : files.policy;
  if (rule == nullptr) rule = policy::FirstMatch(policy, flow);
  std::string text;
  if (rule != nullptr) {
    text = At(file, *rule);
  } else if (!file.empty()) {
    text = file + ": default";
  }
  std::string beyond;
  if (asked) {
    beyond = CauseOf(*policy.floor, files, system, flow);
  } else if (rule == nullptr && policy.otherwise == policy::Action::kSystem) {
    beyond = SystemCause(files.system, system, flow);
  }
  if (!beyond.empty()) text += (text.empty() ? "" : ", ") + beyond;
  return text;
}

}  // namespace latchkey::broker
