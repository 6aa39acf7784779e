// Texts that would make a parser recurse.
#include "policy/nesting.h"

#include <catch2/catch.hpp>
#include <string>

namespace latchkey::policy {
namespace {

std::string Times(int count, const std::string& text) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

void Accept(const std::string& text) {
  INFO(text);
  CHECK_FALSE(FindNestingFault(text, 4).has_value());
}

void Refuse(const std::string& text, int line, int column, const std::string& word) {
  INFO(text);
  const std::optional<NestingFault> fault = FindNestingFault(text, 4);
  REQUIRE(fault.has_value());
  CHECK(fault->line == line);
  CHECK(fault->column == column);
  CHECK(fault->text.find(word) != std::string::npos);
}

TEST_CASE("Brackets up to the limit pass, one more does not") {
  Accept("a = " + Times(4, "[") + Times(4, "]"));
  Refuse("a = " + Times(5, "[") + Times(5, "]"), 1, 9, "nested too deep");
  Refuse("x = 1\na = [{b=[{b=[", 2, 13, "nested too deep");
  Refuse("a = [\n[\n[\n[\n[\n", 5, 1, "nested too deep");
  Accept(Times(100, "[[rule]]\n"));
  Accept(Times(100, "a = [[1], [2]]\n"));
}

TEST_CASE("A closing bracket more than there were opens nothing") {
  Refuse("]]]]]]]]\na = " + Times(5, "["), 2, 9, "nested too deep");
}

TEST_CASE("Brackets and quotes in strings and comments do not count") {
  Accept("a = \"" + Times(9, "[") + "\"");
  Accept("a = '" + Times(9, "{") + "'");
  Accept("# " + Times(9, "[") + " \"\"\" '\na = 1");
  Accept("a = \"\"\"\n" + Times(9, "[") + "\n\"\"\"");
  Accept("a = '''\n" + Times(9, "[") + "\n'''");
  Accept("a = \"\\\"" + Times(9, "[") + "\"");
  Accept("a = \"\"\"x\\\"\"\"" + Times(9, "[") + "\"\"\"");
  Accept("a = \"#\" # " + Times(9, "["));
}

TEST_CASE("Nothing hides brackets") {
  const std::string deep = Times(5, "[");
  Refuse("a = [\"]]]]]]]]\", " + Times(4, "["), 1, 21, "nested too deep");
  Refuse("a = ['\\', " + Times(4, "["), 1, 14, "nested too deep");
  Refuse("a = \"\"," + deep, 1, 12, "nested too deep");
  Refuse("a = \"\"\"x\"\"\"\"\"," + deep, 1, 19, "nested too deep");
  Refuse("a = '''x''''," + deep, 1, 18, "nested too deep");
  Refuse("a = \"not ended\n" + deep, 2, 5, "nested too deep");
  Refuse("# \"\"\"\n" + deep, 2, 5, "nested too deep");
}

TEST_CASE("Dotted keys nest too") {
  Accept("a.b.c.d.e = 1");
  Refuse("a.b.c.d.e.f = 1", 1, 10, "dots");
  Refuse("[a.b.c.d.e.f]", 1, 11, "dots");
  Refuse("\"a\".'b' . c.d.e.f = 1", 1, 16, "dots");
  Accept("a = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]");
  Accept("\"a.b.c.d.e.f\" = 1 # a.b.c.d.e.f");
}

TEST_CASE("Control characters are refused wherever they stand") {
  Refuse("a = 1\v", 1, 6, "\\x0b");
  Refuse("# comment\f\n", 1, 10, "\\x0c");
  Refuse("a = 1\rb = 2", 1, 6, "\\x0d");
  Refuse("a = \"x\x1b[31m\"", 1, 7, "\\x1b");
  Refuse("a = \"\"\"\nx\x7f\"\"\"", 2, 2, "\\x7f");
  Refuse(std::string("a\0b", 3), 1, 2, "\\x00");
  Accept("a = 1\r\nb\t= 2\r\n");
}

TEST_CASE("Beyond ASCII are only strings and comments") {
  Refuse("a=\xcd\x9b", 1, 3, "beyond ASCII");
  Refuse("\xef\xb7\xbf = 1", 1, 1, "beyond ASCII");
  Refuse("a = 1 \xc2\xa0", 1, 7, "beyond ASCII");
  Refuse(" \xef\xbb\xbf", 1, 2, "beyond ASCII");
  Accept("\xef\xbb\xbf# \xc3\xa9\n\"\xc3\xa9\" = '\xc3\xa9'\nb = \'\'\'\xc3\xa9\'\'\'");
}

TEST_CASE(
    "A quote or bracket opens something at the beginning of a value or key, and nowhere else") {
  Refuse("a = 197e00-27T\"\xc9\xa2", 1, 15, "within a value");
  Refuse("a = 1 'x'", 1, 7, "within a value");
  Refuse("a = \"x\" \"y\"", 1, 9, "within a value");
  Refuse("a\"b\" = 1", 1, 2, "within a value");
  Refuse("a = 197e00-27l{", 1, 15, "within a value");
  Refuse("a = 1 [", 1, 7, "within a value");
  Refuse("a = b[1]", 1, 6, "within a value");
  Accept("\"a\".'b' . \"c\" = ['x', \"y\", {\"z\" = 'u', 'v' = \"w\"}]");
  Accept("[\"a\"]\n[['b']]\r\n  'c' = \"\"\nd = [\n  # 'e'\n  'f',\n]\n");
}

TEST_CASE("Columns count characters") {
  Refuse("\"\xc3\xa9\" = " + Times(5, "["), 1, 11, "nested too deep");
}

TEST_CASE("Texts that end early are read to their end and no further") {
  for (const char* text : {"", "\"", "\"\"", "\"\"\"", "\"\"\"\"", "'''x''", "\"\\", "\"\"\"\\",
                           "#", "a.", "[", "'"}) {
    Accept(text);
  }
}

}  // namespace
}  // namespace latchkey::policy
