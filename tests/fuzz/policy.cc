// Application policies (policy/parse.h): any text is a policy or a list of errors that point into
// it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "policy/parse.h"
#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto policy = latchkey::policy::Parse(text, "app.toml");
  if (!policy) latchkey::fuzz::CheckErrors(policy.error(), text);
  return 0;
}
