#include "tools/latchkey/doctor_offload.h"

#include <catch2/catch.hpp>

namespace latchkey::tool {
namespace {

std::string TextOf(const OffloadFacts& facts) { return FindingsText(OffloadFindings(facts)); }

TEST_CASE("Who does the work of SAs is said in a word") {
  CHECK(TextOf({}) == "ok    offload: none; the kernel itself does the work of SAs\n");
  CHECK(TextOf({2, 0, 0}) == "ok    offload: none; the kernel itself does the work of 2 SAs\n");
  CHECK(TextOf({2, 1, 0}).starts_with("ok    offload: a card does the ciphers of 1 SA (crypto), "));
}

TEST_CASE("SAs that a card takes whole serve no latch, and that is bad") {
  const std::string text = TextOf({0, 2, 4});
  CAPTURE(text);
  CHECK(text.starts_with("BAD   offload: a card takes the packets of 4 SAs whole (packet): "));
  CHECK(text.find("(offload-untagged): set hw_offload = ") != std::string::npos);
  CHECK(text.find("\nok    offload: a card does the ciphers of 2 SAs (crypto)") !=
        std::string::npos);
}

}  // namespace
}  // namespace latchkey::tool
