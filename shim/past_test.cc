#include "shim/past.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "shim/held.h"

namespace latchkey::shim {
namespace {

TEST_CASE("What was noted may have a past until its number is another's") {
  OwnHints();
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

TEST_CASE("What a child that shares the memory closes has its past still") {
  OwnHints();
  NotePast(5);
  const pid_t sharing = vfork();
  if (sharing == 0) {
    ForgetPast(5);
    _exit(0);
  }
  waitpid(sharing, nullptr, 0);
  CHECK(MayHavePast(5));
  const pid_t apart = fork();
  if (apart == 0) {
    ForgetPast(5);
    _exit(MayHavePast(5) ? 1 : 0);
  }
  int status = 0;
  waitpid(apart, &status, 0);
  CHECK(status == 0);
  ForgetPast(5);
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
