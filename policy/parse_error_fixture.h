// What the tests of wrong policies share: the good lines before the wrong ones, and tables of
// errors.
#ifndef POLICY_PARSE_ERROR_FIXTURE_H_
#define POLICY_PARSE_ERROR_FIXTURE_H_

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "policy/parse.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {

// Three lines: what a test adds begins at line 4.
inline const std::string kHead = "# a policy\nlatchkey = 1\napplication = \"a\"\n";
inline const std::string kRule = kHead + "[[rule]]\naction = \"protect\"\n";  // then line 6
inline const std::string kProtection = kHead + "[protection.x]\n";            // then line 5
inline const std::string kPeer = kHead + "[peer.p]\nid = [\"alice\"]\n";      // then line 6

inline std::vector<std::string> Errors(const std::string& text) {
  std::vector<std::string> all;
  const auto policy = Parse(text, "p");
  if (policy) return all;
  for (const ParseError& error : policy.error()) all.push_back(error.ToString());
  return all;
}

struct Row {
  std::string text;
  std::vector<std::string> errors;
};

inline void Check(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    INFO(row.text);
    CHECK(Errors(row.text) == row.errors);
  }
}

}  // namespace latchkey::policy

#endif  // POLICY_PARSE_ERROR_FIXTURE_H_
