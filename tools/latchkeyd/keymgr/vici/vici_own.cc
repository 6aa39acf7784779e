// Connections of one flow's own: loaded, negotiated, and taken away again when the flow is over.
#include <algorithm>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/own.h"
#include "tools/latchkeyd/keymgr/vici/vici.h"

namespace latchkey::broker {

// `named`: the caller has been told this ticket already.
Result<uint64_t> ViciKeyManager::Begin(const vici::Wanted& wanted, uint64_t ticket, bool named) {
  Result<vici::Choice> choice = vici::Choose(
      mirror_.conns(), wanted, [this](const std::string& ike) { return mirror_.SolePeerOf(ike); });
  if (!choice) return std::unexpected(choice.error());
  if (wanted.unique) return BeginOwn(*choice, wanted, ticket);
  return negotiations_.Join(*choice, named ? std::optional(ticket) : std::nullopt, ticket);
}

Result<uint64_t> ViciKeyManager::BeginOwn(const vici::Choice& choice, const vici::Wanted& wanted,
                                          uint64_t ticket) {
  const auto conn = std::ranges::find(mirror_.conns(), choice.ike, &vici::ConnConfig::name);
  const auto child = std::ranges::find(conn->children, choice.child, &vici::ChildConfig::name);
  const std::string flow = vici::FlowText(wanted.flow);
  const uint32_t number = next_own_ + 1;
  const std::string name = vici::OwnName(number, wanted.flow);
  Result<vici::Section> message = vici::OwnConn(*conn, *child, wanted, name, number);
  if (!message) return std::unexpected(message.error());
  // A flow has one at a time: what there is did not do.
  Release(wanted.flow);
  next_own_ = number;
  owns_[name] = {Own::Phase::kLoading, ticket, false};
  own_of_[flow] = name;
  commands_.push_back({"load-conn", std::move(*message), name});
  AskConns();
  return ticket;
}

void ViciKeyManager::Release(const Flow& flow) {
  const std::string text = vici::FlowText(flow);
  const auto it = own_of_.find(text);
  if (it == own_of_.end()) {
    if (!first_list_over_) early_.insert(text);
    return;
  }
  const std::string name = it->second;
  own_of_.erase(it);
  Own& own = owns_.at(name);
  // charon's attempt cannot be ended: what it makes is.
  own.released = true;
  if (own.phase == Own::Phase::kUp) EndOwn(name);
}

// The answers of charon tell nothing that matters, so long as they come: what it has not is gone.
void ViciKeyManager::EndOwn(const std::string& name) {
  owns_.erase(name);
  std::erase_if(own_of_, [&name](const auto& each) { return each.second == name; });
  Command terminate{"terminate", {}, {}};
  terminate.message.Add("ike", name);
  terminate.message.Add("timeout", "-1");
  Command unload{"unload-conn", {}, {}};
  unload.message.Add("name", name);
  commands_.push_back(std::move(terminate));
  commands_.push_back(std::move(unload));
  AskConns();
}

void ViciKeyManager::OnCommand(const Command& command, const vici::Section& answer) {
  const auto it = owns_.find(command.loads);
  if (it == owns_.end()) return;
  const std::string name = it->first;
  Own& own = it->second;
  if (answer.Value("success") != "yes") {
    const std::string why(answer.Value("errmsg").value_or("no reason"));
    Acquired(own.ticket,
             {"load IKE child", "charon does not take connection \"" + name + "\": \"" + why + "\"",
              Reason::kNoChild});
    std::erase_if(own_of_, [&name](const auto& each) { return each.second == name; });
    owns_.erase(it);
    return;
  }
  if (own.released) return EndOwn(name);
  own.phase = Own::Phase::kNegotiating;
  negotiations_.Join({name, name}, own.ticket, own.ticket);
}

void ViciKeyManager::OnOwnNegotiated(const std::string& name, bool made) {
  const auto it = owns_.find(name);
  if (it == owns_.end()) return;
  it->second.phase = Own::Phase::kUp;
  if (!made || it->second.released) EndOwn(name);
}

// Those that a broker before us left: what no IKE_SA goes by is unloaded, the others may serve a
// latch that we have taken over.
void ViciKeyManager::InheritOwn() {
  std::set<std::string> names = mirror_.IkeNames();
  const std::set<std::string> up = names;
  for (const vici::ConnConfig& conn : mirror_.conns()) names.insert(conn.name);
  for (const std::string& name : names) {
    const std::optional<std::string> flow = vici::FlowOfOwn(name);
    if (!flow || owns_.contains(name)) continue;
    if (!up.contains(name) || early_.contains(*flow)) {
      EndOwn(name);
      continue;
    }
    owns_[name].phase = Own::Phase::kUp;
    own_of_.try_emplace(*flow, name);
  }
  early_.clear();
}

// What was to end is to end still, if charon is the same when it is back.
void ViciKeyManager::LoseOwn() {
  if (!asking_.name.empty()) commands_.push_front(std::exchange(asking_, {}));
  std::erase_if(commands_, [](const Command& command) { return !command.loads.empty(); });
  std::vector<std::string> loading;
  for (const auto& [name, own] : owns_) {
    if (own.phase == Own::Phase::kLoading) loading.push_back(name);
  }
  for (const std::string& name : loading) {
    Acquired(owns_.at(name).ticket, {"load IKE child", problem_, LostReason()});
    EndOwn(name);
  }
}

}  // namespace latchkey::broker
