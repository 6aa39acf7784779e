// Reads what application policies and the system's file have in common: protections, peers, rules.
#ifndef POLICY_RULE_READER_H_
#define POLICY_RULE_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "policy/grants.h"
#include "policy/policy.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {

// Names on the wire are fields of 64 octets, the last one a NUL.
inline constexpr size_t kMaxName = 63;
inline constexpr size_t kMaxPath = 255;  // likewise

class RuleReader {
 public:
  // `read` notes every mistake; it must live as long as this. `floor`: the rules are the system's,
  // which cannot be optional or name SAs.
  RuleReader(TomlReader& read, bool floor) : read_(read), floor_(floor) {}

  // Reads [protection.NAME], [peer.NAME] and [[rule]] of a file; returns its rules.
  std::vector<Rule> Read(const toml::table& root);

  // Reads a string of 1 to 63 octets without control characters.
  std::optional<std::string> Name(const toml::table& table, std::string_view key);

  // Reads a list of grants.
  Grants ReadGrants(const toml::table& table);

 private:
  using Each = std::function<void(const std::string&, const toml::table&)>;
  void EachTable(const toml::table& root, std::string_view key, const Each& each);
  std::vector<std::string> SuiteNames(const toml::table& table, std::string_view key, bool cipher);
  ProtectionSpec Protection(const std::string& name, const toml::table& table);
  void CheckAh(const toml::table& table, const std::string& where);
  void CheckKeyBits(const toml::table& table, const std::string& where, const ProtectionSpec& spec);
  PeerSpec Peer(const std::string& name, const toml::table& table);
  Rule OneRule(const toml::table& table, size_t number);
  std::optional<std::string> ReadAction(const toml::table& table, Rule& rule);
  void SettleMode(const toml::table& table, Rule& rule);
  void CheckAction(const toml::table& table, const Rule& rule, const std::string& action);
  std::vector<Prefix> Prefixes(const toml::table& table, std::string_view key);
  std::vector<PortRange> Ports(const toml::table& table, std::string_view key);
  template <typename T>
  void Lookup(const toml::table& table, std::string_view key, const std::map<std::string, T>& map,
              T& value);

  TomlReader& read_;
  const bool floor_;
  std::map<std::string, ProtectionSpec> protections_;
  std::map<std::string, PeerSpec> peers_;
  std::set<std::string> any_mode_;  // protections that say mode = "any"
};

// True when `text` holds no control character.
bool Printable(std::string_view text);

}  // namespace latchkey::policy

#endif  // POLICY_RULE_READER_H_
