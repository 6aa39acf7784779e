// Signature files and keys (policy/signature.h): any text is one or is refused; what is read is of
// the form that is written, and never verifies.
#include "policy/signature.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/fuzz/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using latchkey::fuzz::Check;
  using namespace latchkey::policy;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto signature = ReadSignature(text)) {
    Check(text.ends_with('\n'), "a signature ends its last line");
    PublicKey key;
    key.id = signature->id;
    Check(!Verify("text", *signature, key), "nothing verifies by a key of zeros");
  }
  if (const auto key = PublicKey::FromFile(text)) {
    const auto again = PublicKey::FromBase64(key->ToBase64());
    Check(again && again->key == key->key && again->id == key->id, "a key reads as it was written");
  }
  // With a password the derivation would take all of the time.
  if (!SecretKey::NeedsPassword(text)) (void)SecretKey::FromFile(text, "");
  return 0;
}
