// What fuzz targets check beyond "no crash".
#ifndef TESTS_FUZZ_CHECK_H_
#define TESTS_FUZZ_CHECK_H_

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "policy/parse.h"

namespace latchkey::fuzz {

// Ends the run with a report unless `good`.
inline void Check(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// Errors of a file: at least one, each on a line that the text has, each one line of its own.
inline void CheckErrors(const std::vector<policy::ParseError>& errors, std::string_view text) {
  Check(!errors.empty(), "what is refused has an error");
  const auto lines = std::ranges::count(text, '\n') + 1;
  int last = 0;
  for (const policy::ParseError& error : errors) {
    Check(error.line >= 0 && error.line <= lines, "an error's line is in the file");
    Check(error.line == 0 || error.column >= 1, "an error with a line has a column");
    Check(!error.text.empty(), "an error says something");
    Check(std::ranges::none_of(error.ToString(),
                               [](char c) { return static_cast<unsigned char>(c) < 0x20; }),
          "an error is one line without control characters");
    Check(error.line >= last, "errors come in the order of their lines");
    last = error.line;
  }
}

}  // namespace latchkey::fuzz

#endif  // TESTS_FUZZ_CHECK_H_
