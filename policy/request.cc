#include "policy/request.h"

#include <optional>
#include <string>
#include <utility>

#include "policy/rule_reader.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {
namespace {

constexpr char kFile[] = "request";

}  // namespace

std::expected<Policy, std::vector<ParseError>> ParseRequest(std::string_view text,
                                                            std::shared_ptr<const Policy> floor) {
  TomlReader read(kFile);
  RuleReader rules(read, /*floor=*/false);
  Policy policy;
  if (text.size() > kMaxRequest) {
    read.WrongFile("a request of " + std::to_string(text.size()) + " octets: expected at most " +
                   std::to_string(kMaxRequest));
  } else if (const std::optional<toml::table> root = read.Load(text)) {
    read.CheckKeys(*root, "a request", {"protection", "peer", "rule"});
    read.Require(*root, "rule", "a request", "one [[rule]]");
    policy.rules = rules.Read(*root);
    const toml::array* list = root->get_as<toml::array>("rule");
    if (list != nullptr && list->size() != 1) {
      read.Wrong(*list, "a request has " + std::to_string(list->size()) + " rules: expected one");
    }
    const toml::table* rule =
        list != nullptr && !list->empty() ? list->get(0)->as_table() : nullptr;
    if (rule != nullptr) {
      for (const char* key : {"remote", "remote_port", "local", "local_port", "protocol"}) {
        const toml::node* node = rule->get(key);
        if (node == nullptr) continue;
        read.Wrong(
            *node,
            std::string(key) +
                " says which flows are meant: expected none, a request is for its socket's own");
      }
      if (!rule->contains("name") && policy.rules.size() == 1) policy.rules[0].name = kFile;
    }
  }
  if (!read.clean()) return std::unexpected(read.TakeErrors());
  policy.application = floor->application;
  policy.otherwise = Action::kDiscard;  // in a direction that the rule does not speak of
  policy.request = text;
  policy.floor = std::move(floor);
  return policy;
}

std::shared_ptr<const Policy> HeldTo(const std::string& request,
                                     std::shared_ptr<const Policy> floor) {
  auto parsed = ParseRequest(request, std::move(floor));
  if (parsed) return std::make_shared<const Policy>(std::move(*parsed));
  Policy nothing;
  nothing.otherwise = Action::kDiscard;
  return std::make_shared<const Policy>(std::move(nothing));
}

bool SameRules(const std::shared_ptr<const Policy>& one,
               const std::shared_ptr<const Policy>& other) {
  if (one == other) return true;
  if (one == nullptr || other == nullptr) return false;
  if (one->floor == other->floor) return *one == *other;
  if (!SameRules(one->floor, other->floor)) return false;
  Policy alike = *one;  // a request's: one rule
  alike.floor = other->floor;
  return alike == *other;
}

}  // namespace latchkey::policy
