#include "policy/parse.h"

#include <chrono>
#include <limits>
#include <optional>
#include <utility>

#include "policy/rule_reader.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {
namespace {

constexpr size_t kMaxDropPreload = 16;  // the session's page has room for no more

std::string PathFault(std::string_view path) {
  const bool fits = path.starts_with('/') && path.size() <= kMaxPath && Printable(path);
  return fits ? "" : "expected an absolute path of at most 255 octets";
}

class Parser {
 public:
  explicit Parser(std::string_view file) : read_(file), rules_(read_, /*floor=*/false) {}

  std::expected<Policy, std::vector<ParseError>> Run(std::string_view text) {
    if (const std::optional<toml::table> root = read_.Load(text)) Top(*root);
    if (!read_.clean()) return std::unexpected(read_.TakeErrors());
    return std::move(policy_);
  }

 private:
  void Top(const toml::table& root) {
    read_.CheckKeys(root, "the file",
                    {"latchkey", "application", "program", "users", "serial", "not_after",
                     "protection", "peer", "rule", "default", "process"});
    read_.Require(root, "latchkey", "the file", "latchkey = 1");
    read_.Require(root, "application", "the file", "its name, application = \"NAME\"");
    read_.Integer(root, "latchkey", 1, 1);
    policy_.application = rules_.Name(root, "application").value_or("");
    policy_.program = read_.Strings(root, "program", PathFault);
    Users(root);
    policy_.serial = static_cast<uint64_t>(
        read_.Integer(root, "serial", 1, std::numeric_limits<int64_t>::max()).value_or(0));
    NotAfter(root);
    policy_.rules = rules_.Read(root);
    if (const toml::table* otherwise = read_.Table(root, "default")) {
      read_.CheckKeys(*otherwise, "[default]", {"action"});
      if (read_.Word(*otherwise, "action", {"system", "discard"}) == "discard") {
        policy_.otherwise = Action::kDiscard;
      }
    }
    if (const toml::table* process = read_.Table(root, "process")) {
      read_.CheckKeys(*process, "[process]", {"deny_io_uring", "drop_preload"});
      policy_.deny_io_uring = read_.Boolean(*process, "deny_io_uring").value_or(false);
      policy_.drop_preload = read_.Strings(*process, "drop_preload", PathFault, kMaxDropPreload);
    }
  }

  void Users(const toml::table& root) {
    constexpr int64_t kMaxUid = 0xfffffffe;  // the one above is "nobody said"
    read_.List(root, "users", [&](const toml::node& element) {
      if (const auto* number = element.as_integer()) {
        if (number->get() >= 0 && number->get() <= kMaxUid) {
          policy_.users.push_back(std::to_string(number->get()));
          return;
        }
      } else if (const auto* text = element.as_string()) {
        const std::string& name = text->get();
        // A name of digits would be a number to whoever looks it up.
        const bool digit = !name.empty() && name[0] >= '0' && name[0] <= '9';
        if (!name.empty() && name.size() <= kMaxName && Printable(name) && !digit) {
          policy_.users.push_back(name);
          return;
        }
      }
      read_.Wrong(element, "users holds " + Show(element) +
                               ": expected a user name or a number from 0 to 4294967294");
    });
  }

  void NotAfter(const toml::table& root) {
    const toml::node* node = root.get("not_after");
    if (node == nullptr) return;
    if (const auto* date = node->as_date()) {
      const toml::date& day = date->get();
      policy_.not_after = std::chrono::year(day.year) / day.month / day.day;
      return;
    }
    read_.Wrong(*node, "not_after is " + Show(*node) + ": expected a date, like 2030-12-31");
  }

  TomlReader read_;
  RuleReader rules_;
  Policy policy_;
};

}  // namespace

std::expected<Policy, std::vector<ParseError>> Parse(std::string_view text, std::string_view file) {
  return Parser(file).Run(text);
}

}  // namespace latchkey::policy
