#include "policy/pad.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "policy/identity.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {
namespace {

bool Contains(const std::vector<Address>& list, const Address& address) {
  return list.empty() || std::ranges::find(list, address) != list.end();
}

class Parser {
 public:
  explicit Parser(std::string_view file) : read_(file) {}

  std::expected<Pad, std::vector<ParseError>> Run(std::string_view text) {
    if (const std::optional<toml::table> root = read_.Load(text)) Top(*root);
    if (!read_.clean()) return std::unexpected(read_.TakeErrors());
    return std::move(pad_);
  }

 private:
  void Top(const toml::table& root) {
    read_.CheckKeys(root, "the file", {"latchkey", "sa"});
    read_.Integer(root, "latchkey", 1, 1);
    const toml::node* node = root.get("sa");
    if (node == nullptr) return;
    const toml::array* list = node->as_array();
    if (list == nullptr || !list->is_array_of_tables()) {
      read_.Wrong(*node, "sa is " + Show(*node) + ": expected tables, [[sa]]");
      return;
    }
    for (const toml::node& entry : *list) One(*entry.as_table());
  }

  void One(const toml::table& table) {
    read_.CheckKeys(table, "[[sa]]", {"reqid", "spi", "dst", "remote", "id", "local_id", "auth"});
    PadEntry entry;
    entry.reqid = static_cast<uint32_t>(
        read_.Integer(table, "reqid", 1, std::numeric_limits<uint32_t>::max()).value_or(0));
    if (const std::optional<std::string> text = read_.String(table, "spi")) {
      entry.spi = Spi(*text).value_or(0);
      if (entry.spi == 0) {
        read_.Wrong(*table.get("spi"), "spi is " + Quote(*text) +
                                           R"(: expected a string like "0x101", at least 0x100)");
      }
      read_.Require(table, "dst", "[[sa]] with an spi", "the SA's destination, an address");
    } else if (const toml::node* node = table.get("dst")) {
      read_.Wrong(*node, "dst goes with spi: expected both or neither");
    }
    if (table.contains("spi") == table.contains("reqid")) {
      read_.Wrong(table, table.contains("spi") ? "[[sa]] has both spi and reqid: expected one"
                                               : "[[sa]] has neither spi nor reqid: expected one");
    }
    if (const std::optional<std::string> text = read_.String(table, "dst")) {
      if (const std::optional<Address> address = Address::Parse(*text)) {
        entry.spi_destination = *address;
      } else {
        read_.Wrong(*table.get("dst"), "dst is " + Quote(*text) + ": expected an address");
      }
    }
    read_.List(table, "remote", [&](const toml::node& element) {
      const auto* text = element.as_string();
      const std::optional<Address> address =
          text == nullptr ? std::nullopt : Address::Parse(text->get());
      if (address) {
        entry.remote.push_back(*address);
      } else {
        read_.Wrong(element, "remote holds " + Show(element) + ": expected an address");
      }
    });
    read_.Require(table, "id", "[[sa]]", "the peer's name");
    entry.identity.peer_id = Id(table, "id");
    entry.identity.local_id = Id(table, "local_id");
    entry.identity.auth = read_.Word(table, "auth", {"manual"}).value_or("manual");
    pad_.entries.push_back(std::move(entry));
  }

  std::string Id(const toml::table& table, std::string_view key) {
    const std::optional<std::string> id = read_.String(table, key);
    if (!id) return {};
    if (const std::string fault = IdFault(*id, /*wildcard=*/false); !fault.empty()) {
      read_.Wrong(*table.get(key), std::string(key) + " is " + Quote(*id) + ": " + fault);
    }
    return *id;
  }

  static std::optional<uint32_t> Spi(std::string_view text) {
    if (!text.starts_with("0x")) return std::nullopt;
    uint32_t spi = 0;
    const auto [end, error] = std::from_chars(text.begin() + 2, text.end(), spi, 16);
    if (error != std::errc{} || end != text.end() || spi < 0x100) return std::nullopt;
    return spi;
  }

  TomlReader read_;
  Pad pad_;
};

}  // namespace

const PadEntry* Pad::Find(uint32_t reqid, uint32_t spi, const Address& destination,
                          const Address& remote) const {
  const PadEntry* found = nullptr;
  const auto consider = [&](const PadEntry& entry) {
    if (found == nullptr) {
      found = &entry;
      return true;
    }
    return found->identity == entry.identity;
  };
  for (const PadEntry& entry : entries) {
    if (entry.spi == 0 || entry.spi != spi || entry.spi_destination != destination) continue;
    if (Contains(entry.remote, remote) && !consider(entry)) return nullptr;
  }
  if (found != nullptr) return found;
  for (const PadEntry& entry : entries) {
    if (entry.reqid == 0 || entry.reqid != reqid) continue;
    if (Contains(entry.remote, remote) && !consider(entry)) return nullptr;
  }
  return found;
}

std::expected<Pad, std::vector<ParseError>> ParsePad(std::string_view text, std::string_view file) {
  return Parser(file).Run(text);
}

}  // namespace latchkey::policy
