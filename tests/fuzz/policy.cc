// Application policies (policy/parse.h), and programs' own requests (policy/request.h): any text is
// one or a list of errors that point into it.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "policy/parse.h"
#include "policy/request.h"
#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto policy = latchkey::policy::Parse(text, "app.toml");
  if (!policy) latchkey::fuzz::CheckErrors(policy.error(), text);
  const auto request =
      latchkey::policy::ParseRequest(text, std::make_shared<const latchkey::policy::Policy>());
  if (!request) {
    latchkey::fuzz::CheckErrors(request.error(), text);
  } else {
    latchkey::fuzz::Check(request->rules.size() == 1 && request->floor != nullptr,
                          "a request is one rule with a floor");
  }
  return 0;
}
