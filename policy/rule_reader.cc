#include "policy/rule_reader.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "policy/identity.h"
#include "policy/suites.h"

namespace latchkey::policy {
namespace {

constexpr uint16_t kLongestKey = 256;

template <typename T>
std::string Names(const std::map<std::string, T>& map) {
  std::string text;
  for (const auto& [name, value] : map) text += (text.empty() ? "" : ", ") + Quote(name);
  return text.empty() ? "none is defined" : text;
}

// "500ms", "5s", "1m".
std::optional<std::chrono::milliseconds> Duration(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
  if (error != std::errc{} || end == text.begin() || number <= 0 || number > 600'000) {
    return std::nullopt;
  }
  const std::string_view unit(end, static_cast<size_t>(text.end() - end));
  std::chrono::milliseconds duration{};
  if (unit == "ms") {
    duration = std::chrono::milliseconds(number);
  } else if (unit == "s") {
    duration = std::chrono::seconds(number);
  } else if (unit == "m") {
    duration = std::chrono::minutes(number);
  }
  if (duration.count() <= 0 || duration > std::chrono::minutes(10)) return std::nullopt;
  return duration;
}

// Shows the prefix somebody meant who wrote one with host bits.
std::string Hint(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return {};
  const std::optional<Address> address = Address::Parse(text.substr(0, slash));
  int length = -1;
  std::from_chars(text.data() + slash + 1, text.data() + text.size(), length);
  if (!address || length < 0 || length > address->Bits()) return {};
  if (address->family == Family::kV4 && text.find(':') != std::string_view::npos) return {};
  Prefix prefix{*address, static_cast<uint8_t>(length)};
  for (int bit = length; bit < address->Bits(); ++bit) {
    prefix.base.octets.at(static_cast<size_t>(bit / 8)) &=
        static_cast<uint8_t>(~(0x80 >> (bit % 8)));
  }
  return " (" + Quote(prefix.ToString()) + "?)";
}

std::optional<PortRange> Range(std::string_view text) {
  PortRange range;
  const auto [dash, low] = std::from_chars(text.begin(), text.end(), range.low);
  if (low != std::errc{} || dash == text.end() || *dash != '-') return std::nullopt;
  const auto [end, high] = std::from_chars(dash + 1, text.end(), range.high);
  if (high != std::errc{} || end != text.end()) return std::nullopt;
  if (range.low == 0 || range.low > range.high) return std::nullopt;
  return range;
}

}  // namespace

bool Printable(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

std::optional<std::string> RuleReader::Name(const toml::table& table, std::string_view key) {
  std::optional<std::string> name = read_.String(table, key);
  if (!name) return std::nullopt;
  if (!name->empty() && name->size() <= kMaxName && Printable(*name)) return name;
  read_.Wrong(*table.get(key), std::string(key) + " is " + Quote(*name) +
                                   ": expected 1 to 63 octets, none of them a control character");
  return std::nullopt;
}

void RuleReader::EachTable(const toml::table& root, std::string_view key, const Each& each) {
  const toml::table* group = read_.Table(root, key);
  if (group == nullptr) return;
  for (const auto& [name, node] : *group) {
    if (const toml::table* table = node.as_table()) {
      each(std::string(name.str()), *table);
    } else {
      read_.Wrong(node, std::string(key) + "." + Escape(name.str()) + " is " + Show(node) +
                            ": expected a table, [" + std::string(key) + ".NAME]");
    }
  }
}

std::vector<std::string> RuleReader::SuiteNames(const toml::table& table, std::string_view key,
                                                bool cipher) {
  std::vector<std::string> names;
  read_.List(table, key, [&](const toml::node& element) {
    const auto* text = element.as_string();
    const Suite* suite = text == nullptr ? nullptr : SuiteByName(text->get());
    if (suite != nullptr && (suite->kind == Kind::kIntegrity) != cipher) {
      names.emplace_back(suite->name);
      return;
    }
    std::string known;
    for (const Suite& each : Suites()) {
      if ((each.kind == Kind::kIntegrity) == cipher) continue;
      known += (known.empty() ? "" : ", ") + std::string(each.name);
    }
    read_.Wrong(element,
                std::string(key) + " holds " + Show(element) + ": expected one of " + known);
  });
  return names;
}

ProtectionSpec RuleReader::Protection(const std::string& name, const toml::table& table) {
  const std::string where = "[protection." + Escape(name) + "]";
  read_.CheckKeys(table, where,
                  {"protocol", "mode", "encryption", "integrity", "min_key_bits", "replay", "esn",
                   "sharing", "pin"});
  ProtectionSpec spec;
  spec.name = name;
  const bool ah = read_.Word(table, "protocol", {"esp", "ah"}) == "ah";
  if (ah) spec.protocol = SaProtocol::kAh;
  const std::optional<std::string> mode = read_.Word(table, "mode", {"transport", "tunnel", "any"});
  spec.mode = mode == "transport" ? std::optional(Mode::kTransport)
              : mode == "tunnel"  ? std::optional(Mode::kTunnel)
                                  : std::nullopt;
  if (mode == "any") any_mode_.insert(name);
  spec.unique = read_.Word(table, "sharing", {"shared", "unique"}) == "unique";
  spec.encryption = SuiteNames(table, "encryption", /*cipher=*/true);
  spec.integrity = SuiteNames(table, "integrity", /*cipher=*/false);
  spec.min_key_bits =
      static_cast<uint16_t>(read_.Integer(table, "min_key_bits", 0, 512).value_or(128));
  if (ah) {
    CheckAh(table, where);
  } else {
    CheckKeyBits(table, where, spec);
  }
  spec.replay_required = read_.Word(table, "replay", {"required", "any"}) != "any";
  spec.esn_required = read_.Word(table, "esn", {"required", "any"}) == "required";
  const std::optional<std::string> pin = read_.Word(table, "pin", {"auto", "reqid", "spi"});
  if (pin == "reqid") spec.pin = Pin::kReqid;
  if (pin == "spi") spec.pin = Pin::kSpi;
  return spec;
}

// AH hides nothing, so has no cipher.
void RuleReader::CheckAh(const toml::table& table, const std::string& where) {
  for (const char* key : {"encryption", "min_key_bits"}) {
    if (const toml::node* node = table.get(key)) {
      read_.Wrong(*node, std::string(key) + " is about ciphers, and " + where +
                             " has protocol = \"ah\": expected only integrity");
    }
  }
}

// A cipher whose longest key is too short for min_key_bits could never be latched.
void RuleReader::CheckKeyBits(const toml::table& table, const std::string& where,
                              const ProtectionSpec& spec) {
  for (const Suite& suite : Suites()) {
    if (suite.kind == Kind::kIntegrity) continue;
    if (std::ranges::find(spec.encryption, suite.name) == spec.encryption.end()) continue;
    const uint16_t longest = std::ranges::max(suite.key_bits);
    if (longest >= spec.min_key_bits) continue;
    const toml::node* node = table.get("min_key_bits");
    read_.Wrong(node == nullptr ? *table.get("encryption") : *node,
                where + " lists " + Quote(suite.name) + ", whose keys have at most " +
                    std::to_string(longest) + " bits, and min_key_bits is " +
                    std::to_string(spec.min_key_bits) + ": expected at most " +
                    std::to_string(longest));
  }
  if (spec.encryption.empty() && spec.min_key_bits > kLongestKey) {
    if (const toml::node* node = table.get("min_key_bits")) {
      read_.Wrong(*node, "min_key_bits is " + std::to_string(spec.min_key_bits) +
                             ": expected at most " + std::to_string(kLongestKey) +
                             ", no cipher has a longer key");
    }
  }
}

PeerSpec RuleReader::Peer(const std::string& name, const toml::table& table) {
  const std::string where = "[peer." + Escape(name) + "]";
  read_.CheckKeys(table, where, {"id", "auth"});
  read_.Require(table, "id", where, "who it may be, id = [\"NAME\"]");
  PeerSpec peer;
  peer.name = name;
  peer.ids = read_.Strings(table, "id",
                           [](std::string_view id) { return IdFault(id, /*wildcard=*/true); });
  read_.List(table, "auth", [&](const toml::node& element) {
    const auto* text = element.as_string();
    for (const char* auth : {"pubkey", "psk", "eap", "manual"}) {
      if (text != nullptr && text->get() == auth) return peer.auth.emplace_back(auth), void();
    }
    read_.Wrong(element, "auth holds " + Show(element) +
                             ": expected \"pubkey\", \"psk\", \"eap\" or \"manual\"");
  });
  return peer;
}

std::vector<Rule> RuleReader::Read(const toml::table& root) {
  EachTable(root, "protection", [&](const std::string& name, const toml::table& table) {
    protections_[name] = Protection(name, table);
  });
  EachTable(root, "peer", [&](const std::string& name, const toml::table& table) {
    peers_[name] = Peer(name, table);
  });
  std::vector<Rule> read;
  const toml::node* node = root.get("rule");
  if (node == nullptr) return read;
  const toml::array* rules = node->as_array();
  if (rules == nullptr || !rules->is_array_of_tables()) {
    read_.Wrong(*node, "rule is " + Show(*node) + ": expected tables, [[rule]]");
    return read;
  }
  if (rules->size() > kMaxRules) {
    read_.Wrong(*node, std::to_string(rules->size()) + " rules: expected at most " +
                           std::to_string(kMaxRules));
    return read;
  }
  read.reserve(rules->size());
  for (const toml::node& rule : *rules) read.push_back(OneRule(*rule.as_table(), read.size() + 1));
  return read;
}

Rule RuleReader::OneRule(const toml::table& table, size_t number) {
  if (floor_) {
    read_.CheckKeys(table, "[[rule]]",
                    {"name", "direction", "protocol", "remote", "remote_port", "local",
                     "local_port", "action", "protection", "peer"});
  } else {
    read_.CheckKeys(
        table, "[[rule]]",
        {"name", "direction", "protocol", "remote", "remote_port", "local", "local_port", "action",
         "protection", "peer", "child", "reqid", "on_break", "acquire_timeout"});
  }
  Rule rule;
  rule.line = static_cast<int>(table.source().begin.line);
  rule.column = static_cast<int>(table.source().begin.column);
  rule.name = Name(table, "name").value_or("rule " + std::to_string(number));
  const std::optional<std::string> direction = read_.Word(table, "direction", {"out", "in"});
  if (direction == "out") rule.direction = Direction::kOut;
  if (direction == "in") rule.direction = Direction::kIn;
  const std::optional<std::string> protocol = read_.Word(table, "protocol", {"tcp", "udp", "any"});
  if (protocol == "tcp") rule.protocol = kProtocolTcp;
  if (protocol == "udp") rule.protocol = kProtocolUdp;
  rule.remote = Prefixes(table, "remote");
  rule.local = Prefixes(table, "local");
  rule.remote_port = Ports(table, "remote_port");
  rule.local_port = Ports(table, "local_port");
  const std::optional<std::string> action = ReadAction(table, rule);
  if (table.contains("child")) rule.child = Name(table, "child").value_or("");
  if (read_.Word(table, "on_break", {"reset", "suspend"}) == "suspend") {
    rule.on_break = OnBreak::kSuspend;
  }
  Lookup(table, "protection", protections_, rule.protection);
  Lookup(table, "peer", peers_, rule.peer);
  rule.reqid = static_cast<uint32_t>(
      read_.Integer(table, "reqid", 1, std::numeric_limits<uint32_t>::max()).value_or(0));
  if (const std::optional<std::string> text = read_.String(table, "acquire_timeout")) {
    if (const std::optional<std::chrono::milliseconds> duration = Duration(*text)) {
      rule.acquire_timeout = *duration;
    } else {
      read_.Wrong(*table.get("acquire_timeout"),
                  "acquire_timeout is " + Quote(*text) +
                      R"(: expected a duration of at most 10m, like "500ms", "5s" or "1m")");
    }
  }
  SettleMode(table, rule);
  if (action) CheckAction(table, rule, *action);
  rule.algorithms = Accepted(rule.protection);
  return rule;
}

// The kernel cannot be told "transport or tunnel" (the templates of a policy have no or), which
// does no harm where the SA is known before the first packet: where the program connects.
void RuleReader::SettleMode(const toml::table& table, Rule& rule) {
  if (!table.contains("protection")) rule.protection.mode.reset();
  if (floor_ || rule.protection.mode || rule.direction == Direction::kOut) return;
  if (any_mode_.contains(rule.protection.name) && table.contains("protection")) {
    read_.Wrong(*table.get("protection"),
                "protection is " + Quote(rule.protection.name) +
                    ", whose mode is \"any\": expected a mode of \"transport\" or \"tunnel\" for "
                    "incoming connections, or direction = \"out\"");
  }
  rule.protection.mode = Mode::kTransport;
}

std::optional<std::string> RuleReader::ReadAction(const toml::table& table, Rule& rule) {
  read_.Require(table, "action", "[[rule]]",
                floor_ ? "\"protect\", \"bypass\" or \"discard\""
                       : "\"protect\", \"protect-or-bypass\", \"bypass\" or \"discard\"");
  std::optional<std::string> action =
      floor_ ? read_.Word(table, "action", {"protect", "bypass", "discard"})
             : read_.Word(table, "action", {"protect", "protect-or-bypass", "bypass", "discard"});
  if (action == "protect") rule.action = Action::kProtect;
  if (action == "protect-or-bypass") rule.action = Action::kProtectOrBypass;
  if (action == "bypass") rule.action = Action::kBypass;
  return action;
}

void RuleReader::CheckAction(const toml::table& table, const Rule& rule,
                             const std::string& action) {
  if (Protects(rule.action)) {
    // What listens is held to a rule before anybody knows from which port a peer will come. (UDP:
    // it is heard from there once the program has sent there.)
    const bool tcp_in = rule.direction == Direction::kIn && rule.protocol != kProtocolUdp;
    if (!floor_ && tcp_in && !rule.remote_port.empty()) {
      read_.Wrong(*table.get("remote_port"),
                  "remote_port is " + Show(*table.get("remote_port")) +
                      ", the client's, in a rule that protects incoming TCP connections: expected "
                      "local_port, the server's, or protocol = \"udp\"");
    }
    return;
  }
  for (const char* key : {"protection", "peer", "child", "reqid", "acquire_timeout", "on_break"}) {
    if (const toml::node* node = table.get(key)) {
      read_.Wrong(*node, std::string(key) + " says how to protect, but the action is " +
                             Quote(action) + ": expected it only with \"protect\"");
    }
  }
}

Grants RuleReader::ReadGrants(const toml::table& table) {
  Grants grants;
  read_.List(table, "grants", [&](const toml::node& element) {
    const auto* text = element.as_string();
    for (const auto& [word, grant] : kGrantWords) {
      if (text != nullptr && text->get() == word) return grants.Add(grant);
    }
    read_.Wrong(element, "grants holds " + Show(element) +
                             ": expected \"bypass\", \"weaken\" or \"override-discard\"");
  });
  return grants;
}

template <typename T>
void RuleReader::Lookup(const toml::table& table, std::string_view key,
                        const std::map<std::string, T>& map, T& value) {
  const std::optional<std::string> name = read_.String(table, key);
  if (!name) return;
  const auto it = map.find(*name);
  if (it != map.end()) {
    value = it->second;
  } else {
    read_.Wrong(*table.get(key), std::string(key) + " is " + Quote(*name) +
                                     ": expected the name of a [" + std::string(key) +
                                     ".NAME] table: " + Names(map));
  }
}

std::vector<Prefix> RuleReader::Prefixes(const toml::table& table, std::string_view key) {
  std::vector<Prefix> prefixes;
  read_.List(table, key, [&](const toml::node& element) {
    const auto* text = element.as_string();
    if (text != nullptr) {
      if (const std::optional<Prefix> prefix = Prefix::Parse(text->get())) {
        prefixes.push_back(*prefix);
        return;
      }
    }
    read_.Wrong(element, std::string(key) + " holds " + Show(element) +
                             ": expected an address or a prefix without host bits, like "
                             "\"10.0.0.0/8\" or \"fd00::1\"" +
                             Hint(text == nullptr ? "" : text->get()));
  });
  return prefixes;
}

std::vector<PortRange> RuleReader::Ports(const toml::table& table, std::string_view key) {
  std::vector<PortRange> ranges;
  read_.List(table, key, [&](const toml::node& element) {
    if (const auto* number = element.as_integer()) {
      if (number->get() >= 1 && number->get() <= 65535) {
        const auto port = static_cast<uint16_t>(number->get());
        ranges.push_back(PortRange{port, port});
        return;
      }
    } else if (const auto* text = element.as_string()) {
      if (const std::optional<PortRange> range = Range(text->get())) {
        ranges.push_back(*range);
        return;
      }
    }
    read_.Wrong(element, std::string(key) + " holds " + Show(element) +
                             ": expected a port from 1 to 65535 or a range like \"6000-6010\"");
  });
  return ranges;
}

}  // namespace latchkey::policy
