// Errors as text.
#include "policy/model/error.h"

#include <catch2/catch.hpp>

using latchkey::Error;
using latchkey::Fail;
using latchkey::Reason;
using latchkey::Result;

TEST_CASE("An error names step, value and reason word") {
  CHECK(Error{"open policy", "app.toml", Reason::kBadPolicy}.ToString() ==
        "open policy: app.toml (bad-policy)");
  CHECK(Error{"find SA", "", Reason::kNoSa}.ToString() == "find SA (no-sa)");
}

TEST_CASE("An error without a reason given is a refusal") {
  CHECK(Error{}.reason == Reason::kKernelRefused);
  CHECK(latchkey::wire::ReasonErrno(Error{}.reason) != 0);
}

TEST_CASE("Fail makes a result that holds no value") {
  const Result<int> result = Fail(Reason::kLimit, "open session", "64 already");
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().step == "open session");
  CHECK(result.error().value == "64 already");
  CHECK(result.error().reason == Reason::kLimit);
}
