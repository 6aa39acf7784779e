#include "shim/past.h"

#include <catch2/catch.hpp>

namespace latchkey::shim {
namespace {

TEST_CASE("What was noted may have a past until its number is another's") {
  for (const int fd : {0, 63, 64, kPastLimit - 1}) {
    INFO(fd);
    CHECK_FALSE(MayHavePast(fd));
    NotePast(fd);
    CHECK(MayHavePast(fd));
    CHECK_FALSE(MayHavePast(fd == 0 ? 1 : fd - 1));
    ForgetPast(fd);
    CHECK_FALSE(MayHavePast(fd));
  }
}

TEST_CASE("That there were datagrams is not forgotten") {
  CHECK_FALSE(AnyDatagrams());
  NoteDatagrams();
  CHECK(AnyDatagrams());
}

TEST_CASE("Of what is not kept nothing is known") {
  for (const int fd : {-1, kPastLimit, 1 << 30}) {
    NotePast(fd);
    ForgetPast(fd);
    CHECK(MayHavePast(fd));
  }
}

}  // namespace
}  // namespace latchkey::shim
