// /etc/latchkey/pad.toml (policy/pad.h): any text is a PAD or a list of errors that point into it.
#include "policy/pad.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto pad = latchkey::policy::ParsePad(text, "pad.toml");
  if (!pad) {
    latchkey::fuzz::CheckErrors(pad.error(), text);
    return 0;
  }
  for (const latchkey::policy::PadEntry& entry : pad->entries) {
    latchkey::fuzz::Check((entry.reqid == 0) != (entry.spi == 0), "an entry has one name");
    latchkey::fuzz::Check(!entry.identity.peer_id.empty(), "an entry says who it is");
  }
  return 0;
}
