// /etc/latchkey/system.toml (policy/system_parse.h): any text is a system policy or a list of
// errors that point into it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "policy/system_parse.h"
#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace latchkey::policy;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto system = ParseSystem(text, "system.toml");
  if (!system) {
    latchkey::fuzz::CheckErrors(system.error(), text);
    return 0;
  }
  latchkey::fuzz::Check(system->mark_mask != 0, "there is a bit to mark with");
  for (const Rule& rule : system->rules) {
    latchkey::fuzz::Check(rule.action != Action::kProtectOrBypass && rule.reqid == 0,
                          "a floor is not optional and names no SA");
  }
  return 0;
}
