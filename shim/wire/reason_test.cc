// Reason words and errno values are an interface: they are listed here once more, so that a
// rename or a move shows.
#include "shim/wire/reason.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <set>
#include <string>
#include <vector>

namespace latchkey::wire {
namespace {

TEST_CASE("Words, numbers and errno values stay as they are") {
  struct Row {
    const char* word;
    int error;
  };
  const std::vector<Row> rows = {
      {"none", 0},
      {"policy-discard", EACCES},
      {"bad-policy", EACCES},
      {"unprivileged-bypass", EACCES},
      {"no-sa", ENOKEY},
      {"acquire-timeout", ETIMEDOUT},
      {"peer-mismatch", EKEYREJECTED},
      {"peer-unknown", EKEYREJECTED},
      {"ambiguous-peer", EKEYREJECTED},
      {"weak-protection", EPROTO},
      {"conflict-sa", ECONNRESET},
      {"conflict-spd", EACCES},
      {"peer-dead", ECONNRESET},
      {"km-lost", ECONNRESET},
      {"admin", ECONNRESET},
      {"broker-gone", EHOSTUNREACH},
      {"no-session", EHOSTUNREACH},
      {"foreign-netns", EACCES},
      {"shim-not-loaded", EACCES},
      {"unlatched-listener", EACCES},
      {"local-peer", EACCES},
      {"limit", EACCES},
      {"kernel-refused", EHOSTUNREACH},
      {"unsupported", EPROTONOSUPPORT},
      {"bad-request", EINVAL},
      {"suspect-gap", ECONNRESET},
      {"closed", ECONNRESET},
      {"unprivileged-weaken", EACCES},
      {"bad-signature", EACCES},
      {"policy-expired", EACCES},
      {"policy-rollback", EACCES},
      {"no-child", ENOKEY},
      {"auth-failed", EKEYREJECTED},
      {"no-proposal", EPROTO},
      {"offload-untagged", EPROTO},
      {"fenced", EPERM},
      {"no-xfrm", EPROTO},
  };
  // New reasons go at the end, and into this table.
  REQUIRE(kReasonCount == rows.size());
  for (uint16_t number = 0; number < kReasonCount; ++number) {
    INFO(number);
    CHECK(ReasonWord(static_cast<Reason>(number)) == std::string(rows[number].word));
    CHECK(ReasonErrno(static_cast<Reason>(number)) == rows[number].error);
  }
}

TEST_CASE("Words are unique and in the alphabet of logs and counters") {
  std::set<std::string> words;
  for (uint16_t number = 0; number < kReasonCount; ++number) {
    const std::string word = ReasonWord(static_cast<Reason>(number));
    CHECK(words.insert(word).second);
    CHECK_FALSE(word.empty());
    CHECK(word.find_first_not_of("abcdefghijklmnopqrstuvwxyz-") == std::string::npos);
    CHECK(word != "unknown");
  }
}

TEST_CASE("Every reason but none is an error to the program") {
  CHECK(ReasonErrno(Reason::kNone) == 0);
  for (uint16_t number = 1; number < kReasonCount; ++number) {
    CHECK(ReasonErrno(static_cast<Reason>(number)) != 0);
    // The program must never see what reads as "try again".
    CHECK(ReasonErrno(static_cast<Reason>(number)) != EAGAIN);
  }
}

TEST_CASE("A number that is none of ours is refused") {
  for (const uint16_t number : {kReasonCount, uint16_t{999}, uint16_t{0xffff}}) {
    CHECK(ReasonWord(static_cast<Reason>(number)) == std::string("unknown"));
    CHECK(ReasonErrno(static_cast<Reason>(number)) == EACCES);
  }
}

TEST_CASE("Words and errno values are known at compile time") {
  STATIC_REQUIRE(ReasonErrno(Reason::kNoSa) == ENOKEY);
  STATIC_REQUIRE(ReasonWord(Reason::kNoSa)[0] == 'n');
}

}  // namespace
}  // namespace latchkey::wire
