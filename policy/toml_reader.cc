#include "policy/toml_reader.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "policy/nesting.h"

namespace latchkey::policy {
namespace {

// What lies further apart is no slip of the keyboard.
constexpr size_t kNear = 2;

// Levenshtein distance, for the names of keys; of names that are far apart by their lengths alone
// only that much, since a key can be as long as a file.
size_t Distance(std::string_view a, std::string_view b) {
  const size_t least = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (least > kNear) return least;
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t swap = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, swap});
    }
  }
  return row[b.size()];
}

std::string JoinWords(std::initializer_list<std::string_view> words, std::string_view last) {
  std::string text;
  for (const std::string_view& word : words) {
    if (!text.empty()) text += &word == words.end() - 1 ? last : ", ";
    text += Quote(word);
  }
  return text;
}

bool Has(std::initializer_list<std::string_view> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

void TomlAssertionFailed() { throw std::logic_error("the parser met what it does not expect"); }

std::string ParseError::ToString() const {
  std::string where = file;
  if (line > 0) where += ":" + std::to_string(line) + ":" + std::to_string(column);
  return where + ": " + text;
}

std::string Escape(std::string_view text) {
  std::string escaped;
  const auto octet = [text](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto hex = [&escaped](unsigned value) {
    std::array<char, 8> code{};
    std::snprintf(code.data(), code.size(), "\\x%02x", value);
    escaped += code.data();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (octet(i) < 0x20 || octet(i) == 0x7f) {
      hex(octet(i));
    } else if (octet(i) == 0xc2 && octet(i + 1) >= 0x80 && octet(i + 1) < 0xa0) {
      hex(octet(++i));
    } else {
      escaped += text[i];
    }
  }
  return escaped;
}

std::string Quote(std::string_view text) {
  constexpr size_t kShown = 80;
  size_t shown = std::min(text.size(), kShown);
  // Never in the middle of a character.
  while (shown < text.size() && shown > 0 &&
         (static_cast<unsigned char>(text[shown]) & 0xc0) == 0x80) {
    --shown;
  }
  std::string quoted = "\"";
  for (const char c : text.substr(0, shown)) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  quoted = Escape(quoted);
  return quoted + (shown < text.size() ? "…\"" : "\"");
}

std::string Show(const toml::node& node) {
  if (const auto* text = node.as_string()) return Quote(text->get());
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  std::ostringstream out;
  node.visit([&out](const auto& value) { out << value; });
  return out.str();
}

std::optional<toml::table> TomlReader::Load(std::string_view text) {
  if (text.size() > kMaxText) {
    WrongFile(std::to_string(text.size()) + " octets: expected at most " +
              std::to_string(kMaxText));
    return std::nullopt;
  }
  if (const std::optional<NestingFault> fault = FindNestingFault(text, kMaxDepth)) {
    WrongAt(fault->line, fault->column, fault->text);
    return std::nullopt;
  }
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    WrongAt(static_cast<int>(error.source().begin.line),
            static_cast<int>(error.source().begin.column), Escape(error.description()));
  } catch (const std::exception& error) {
    WrongFile(std::string("no TOML: ") + error.what());
  }
  return std::nullopt;
}

void TomlReader::Wrong(const toml::node& node, const std::string& text) {
  const toml::source_position& begin = node.source().begin;
  WrongAt(static_cast<int>(begin.line), static_cast<int>(begin.column), text);
}

void TomlReader::WrongFile(const std::string& text) { WrongAt(1, 1, text); }

void TomlReader::WrongAt(int line, int column, const std::string& text) {
  if (errors_.size() < kMaxErrors) {
    errors_.push_back(ParseError{file_, line, column, text});
  } else if (errors_.size() == kMaxErrors) {
    errors_.push_back(
        ParseError{file_, 1, 1,
                   "more than " + std::to_string(kMaxErrors) + " errors: these are some of them"});
  }
}

void TomlReader::CheckKeys(const toml::table& table, std::string_view where,
                           std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : table) {
    const std::string_view name = key.str();
    if (Has(known, name)) continue;
    const toml::source_position& begin = key.source().begin;
    std::string text = "unknown key " + Quote(name) + " in " + std::string(where);
    const auto* const near = std::ranges::min_element(
        known, {}, [name](std::string_view word) { return Distance(name, word); });
    if (near != known.end() && Distance(name, *near) <= kNear) {
      text += ": did you mean " + Quote(*near) + "?";
    } else {
      text += ": expected one of " + JoinWords(known, ", ");
    }
    WrongAt(static_cast<int>(begin.line), static_cast<int>(begin.column), text);
  }
}

std::optional<std::string> TomlReader::String(const toml::table& table, std::string_view key) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::nullopt;
  if (const auto* text = node->as_string()) return text->get();
  Wrong(*node, std::string(key) + " is " + Show(*node) + ": expected a string");
  return std::nullopt;
}

std::optional<int64_t> TomlReader::Integer(const toml::table& table, std::string_view key,
                                           int64_t low, int64_t high) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::nullopt;
  const auto* number = node->as_integer();
  if (number != nullptr && number->get() >= low && number->get() <= high) return number->get();
  const std::string range =
      low == high ? std::to_string(low)
                  : "an integer from " + std::to_string(low) + " to " + std::to_string(high);
  Wrong(*node, std::string(key) + " is " + Show(*node) + ": expected " + range);
  return std::nullopt;
}

std::optional<bool> TomlReader::Boolean(const toml::table& table, std::string_view key) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::nullopt;
  if (const auto* value = node->as_boolean()) return value->get();
  Wrong(*node, std::string(key) + " is " + Show(*node) + ": expected true or false");
  return std::nullopt;
}

std::optional<std::string> TomlReader::Word(const toml::table& table, std::string_view key,
                                            std::initializer_list<std::string_view> words) {
  std::optional<std::string> word = String(table, key);
  if (!word || Has(words, *word)) return word;
  Wrong(*table.get(key),
        std::string(key) + " is " + Quote(*word) + ": expected " + JoinWords(words, " or "));
  return std::nullopt;
}

void TomlReader::List(const toml::table& table, std::string_view key,
                      const std::function<void(const toml::node&)>& each, size_t most) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return;
  const toml::array* list = node->as_array();
  if (list == nullptr) {
    Wrong(*node,
          std::string(key) + " is " + Show(*node) + ": expected a list, [" + Show(*node) + "]");
    return;
  }
  if (list->empty() || list->size() > most) {
    Wrong(*node, std::string(key) + " has " + std::to_string(list->size()) +
                     " elements: expected 1 to " + std::to_string(most));
    return;
  }
  for (const toml::node& element : *list) each(element);
}

std::vector<std::string> TomlReader::Strings(
    const toml::table& table, std::string_view key,
    const std::function<std::string(std::string_view)>& fault, size_t most) {
  std::vector<std::string> strings;
  List(
      table, key,
      [&](const toml::node& element) {
        const auto* text = element.as_string();
        const std::string wrong = text == nullptr ? "expected a string" : fault(text->get());
        if (wrong.empty()) {
          strings.push_back(text->get());
        } else {
          Wrong(element, std::string(key) + " holds " + Show(element) + ": " + wrong);
        }
      },
      most);
  return strings;
}

const toml::table* TomlReader::Table(const toml::table& table, std::string_view key) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return nullptr;
  if (const toml::table* found = node->as_table()) return found;
  Wrong(*node, std::string(key) + " is " + Show(*node) + ": expected a table");
  return nullptr;
}

void TomlReader::Require(const toml::table& table, std::string_view key, std::string_view where,
                         std::string_view expected) {
  if (table.contains(key)) return;
  const std::string text =
      "no key " + Quote(key) + " in " + std::string(where) + ": expected " + std::string(expected);
  if (table.source().begin.line > 0) {
    Wrong(table, text);
  } else {
    WrongFile(text);
  }
}

std::vector<ParseError> TomlReader::TakeErrors() {
  std::ranges::stable_sort(errors_, [](const ParseError& a, const ParseError& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  return std::move(errors_);
}

}  // namespace latchkey::policy
