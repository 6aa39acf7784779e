// Reads TOML tables with every mistake noted where it stands: what both parsers of policy files
// lean on.
//
// Nothing here stops at the first error; a value that is wrong reads as left out.
#ifndef POLICY_TOML_READER_H_
#define POLICY_TOML_READER_H_

// toml++ 3.3.0 asserts on some texts that are merely wrong ("[[[x"): by default that ends the
// process, and the process is the broker. Here a failed assertion is an exception, which Load()
// catches like any syntax error.
namespace latchkey::policy {
[[noreturn]] void TomlAssertionFailed();
}  // namespace latchkey::policy
#define TOML_ASSERT(expr) \
  (static_cast<bool>(expr) ? static_cast<void>(0) : ::latchkey::policy::TomlAssertionFailed())
#define TOML_EXCEPTIONS 1
// With NDEBUG toml++ would drop the check and go on in a state it does not expect.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/parse.h"

namespace latchkey::policy {

inline constexpr size_t kMaxText = 1 << 20;
inline constexpr size_t kMaxRules = 256;
inline constexpr size_t kMaxList = 64;
inline constexpr int kMaxDepth = 16;

// A text can hold more mistakes than anybody reads, and each costs memory.
inline constexpr size_t kMaxErrors = 1000;

// Returns `text` with control characters (C0, DEL and, as UTF-8, C1) escaped: what a terminal would
// act on must not come out of a message.
std::string Escape(std::string_view text);

// Returns `text` in double quotes, escaped, its own quotes and backslashes too; cut to 80 octets.
std::string Quote(std::string_view text);

class TomlReader {
 public:
  explicit TomlReader(std::string_view file) : file_(file) {}

  // Parses the text; nothing after a syntax error (the parser stops at the first), a text above
  // kMaxText or one nested deeper than kMaxDepth.
  std::optional<toml::table> Load(std::string_view text);

  // Notes an error at a node or position ("found", then "expected").
  void Wrong(const toml::node& node, const std::string& text);
  void WrongAt(int line, int column, const std::string& text);
  void WrongFile(const std::string& text);

  // Notes every key of `table` that is in neither list; those in `later` as not supported yet.
  void CheckKeys(const toml::table& table, std::string_view where,
                 std::initializer_list<std::string_view> known,
                 std::initializer_list<std::string_view> later = {});

  // Each reads one key; nothing when it is left out or wrong (then noted).
  std::optional<std::string> String(const toml::table& table, std::string_view key);
  std::optional<int64_t> Integer(const toml::table& table, std::string_view key, int64_t low,
                                 int64_t high);
  // One of `words`; a value in `later` is one that is not supported yet.
  std::optional<std::string> Word(const toml::table& table, std::string_view key,
                                  std::initializer_list<std::string_view> words,
                                  std::initializer_list<std::string_view> later = {});
  // Calls `each` with every element of the list under `key`. A value that is no list is noted.
  void List(const toml::table& table, std::string_view key,
            const std::function<void(const toml::node&)>& each);
  // A list of strings. `fault` says what is wrong with one ("expected …"), or nothing.
  std::vector<std::string> Strings(const toml::table& table, std::string_view key,
                                   const std::function<std::string(std::string_view)>& fault);

  // A table under `key`; nothing when left out or no table.
  const toml::table* Table(const toml::table& table, std::string_view key);

  // Notes that `key` of `table` must be there when it is not.
  void Require(const toml::table& table, std::string_view key, std::string_view where);

  // All errors, in the order of their lines.
  std::vector<ParseError> TakeErrors();
  bool clean() const { return errors_.empty(); }

 private:
  std::string file_;
  std::vector<ParseError> errors_;
};

// Returns the value of a node as it would be quoted in a message.
std::string Show(const toml::node& node);

}  // namespace latchkey::policy

#endif  // POLICY_TOML_READER_H_
