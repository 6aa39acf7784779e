#include "policy/system_parse.h"

#include <bit>
#include <utility>

#include "policy/rule_reader.h"
#include "policy/signature.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {
namespace {

constexpr char kGrantsExpected[] = "a list of \"bypass\", \"weaken\" or \"override-discard\"";

class Parser {
 public:
  explicit Parser(std::string_view file) : read_(file), rules_(read_, /*floor=*/true) {}

  std::expected<SystemPolicy, std::vector<ParseError>> Run(std::string_view text) {
    if (const std::optional<toml::table> root = read_.Load(text)) Top(*root);
    if (!read_.clean()) return std::unexpected(read_.TakeErrors());
    return std::move(system_);
  }

 private:
  void Top(const toml::table& root) {
    read_.CheckKeys(root, "the file",
                    {"latchkey", "mark_mask", "suites", "clear_fragments", "default", "protection",
                     "peer", "rule", "signer", "grant"});
    read_.Require(root, "latchkey", "the file", "latchkey = 1");
    read_.Integer(root, "latchkey", 1, 1);
    MarkMask(root);
    system_.fragments_dropped =
        read_.Word(root, "clear_fragments", {"ban", "dropped"}) == "dropped";
    Suites(root);
    if (const toml::table* otherwise = read_.Table(root, "default")) {
      read_.CheckKeys(*otherwise, "[default]", {"on_break"});
      if (read_.Word(*otherwise, "on_break", {"reset", "suspend"}) == "suspend") {
        system_.on_break = OnBreak::kSuspend;
      }
    }
    system_.rules = rules_.Read(root);
    EachOf(root, "signer", [&](const toml::table& table) { OneSigner(table); });
    EachOf(root, "grant", [&](const toml::table& table) { OneGrant(table); });
  }

  void MarkMask(const toml::table& root) {
    const std::optional<int64_t> mask = read_.Integer(root, "mark_mask", 1, 0xffffffff);
    if (!mask) return;
    system_.mark_mask = static_cast<uint32_t>(*mask);
    const uint32_t run = system_.mark_mask >> std::countr_zero(system_.mark_mask);
    if ((run & (run + 1)) != 0) {
      read_.Wrong(*root.get("mark_mask"),
                  "mark_mask is " + Show(*root.get("mark_mask")) + ": expected bits side by side");
    }
  }

  void Suites(const toml::table& root) {
    read_.List(root, "suites", [&](const toml::node& element) {
      const toml::array* names = element.as_array();
      if (names == nullptr || names->empty()) {
        read_.Wrong(element, "suites holds " + Show(element) +
                                 ": expected lists of suites, strongest first, like "
                                 "[[\"aes-gcm-16:256\"], [\"aes-gcm-16:128\"]]");
        return;
      }
      system_.suites.BeginClass();
      for (const toml::node& name : *names) {
        const auto* text = name.as_string();
        const std::string fault =
            text == nullptr ? "expected a string" : system_.suites.Add(text->get());
        if (!fault.empty()) read_.Wrong(name, "suites holds " + Show(name) + ": " + fault);
      }
    });
  }

  template <typename Each>
  void EachOf(const toml::table& root, std::string_view key, const Each& each) {
    const toml::node* node = root.get(key);
    if (node == nullptr) return;
    const toml::array* list = node->as_array();
    if (list == nullptr || !list->is_array_of_tables()) {
      read_.Wrong(*node, std::string(key) + " is " + Show(*node) + ": expected tables, [[" +
                             std::string(key) + "]]");
      return;
    }
    for (const toml::node& entry : *list) each(*entry.as_table());
  }

  void OneSigner(const toml::table& table) {
    read_.CheckKeys(table, "[[signer]]", {"key", "grants", "applications"});
    read_.Require(table, "key", "[[signer]]", "a minisign public key, 56 characters");
    read_.Require(table, "grants", "[[signer]]", kGrantsExpected);
    Signer signer;
    if (const std::optional<std::string> key = read_.String(table, "key")) {
      if (!PublicKey::FromBase64(*key)) {
        read_.Wrong(*table.get("key"),
                    "key is " + Quote(*key) + ": expected a minisign public key, 56 characters");
      }
      signer.key = *key;
    }
    signer.grants = rules_.ReadGrants(table);
    signer.applications = read_.Strings(table, "applications", [](std::string_view name) {
      const bool fits = !name.empty() && name.size() <= kMaxName && Printable(name);
      return fits ? std::string() : "expected an application's name";
    });
    system_.signers.push_back(std::move(signer));
  }

  void OneGrant(const toml::table& table) {
    read_.CheckKeys(table, "[[grant]]", {"user", "group", "grants"});
    read_.Require(table, "grants", "[[grant]]", kGrantsExpected);
    GrantTo grant;
    const bool user = table.contains("user");
    if (user == table.contains("group")) {
      read_.Wrong(table, user ? "[[grant]] has both user and group: expected one"
                              : "[[grant]] has neither user nor group: expected one");
    }
    const char* key = user ? "user" : "group";
    if (const std::optional<std::string> name = read_.String(table, key)) {
      grant.name = *name;
      grant.whom = user ? GrantTo::Whom::kUser : GrantTo::Whom::kGroup;
      if (user && *name == "*") grant.whom = GrantTo::Whom::kEverybody;
      if (name->empty() || name->size() > kMaxName || !Printable(*name)) {
        read_.Wrong(*table.get(key),
                    std::string(key) + " is " + Quote(*name) + ": expected a name or \"*\"");
      }
    }
    grant.grants = rules_.ReadGrants(table);
    system_.grants.push_back(std::move(grant));
  }

  TomlReader read_;
  RuleReader rules_;
  SystemPolicy system_;
};

}  // namespace

std::expected<SystemPolicy, std::vector<ParseError>> ParseSystem(std::string_view text,
                                                                 std::string_view file) {
  return Parser(file).Run(text);
}

}  // namespace latchkey::policy
