#include "tools/latchkeyd/kernel/map_update.h"

#include <catch2/catch.hpp>
#include <cerrno>

namespace latchkey::broker {
namespace {

// A call that fails with `why` so often, and then is 0; returns how often it was made.
int Made(int failures, int why, int& done) {
  int made = 0;
  done = TryAgain([&] {
    errno = why;
    return ++made <= failures ? -1 : 0;
  });
  return made;
}

TEST_CASE("What finds no memory is tried again, six times in all, and nothing else is") {
  int done = 0;
  CHECK(Made(0, 0, done) == 1);
  CHECK(done == 0);
  CHECK(Made(2, ENOMEM, done) == 3);
  CHECK(done == 0);
  CHECK(Made(5, ENOMEM, done) == 6);
  CHECK(done == 0);
  CHECK(Made(100, ENOMEM, done) == 6);
  CHECK(done == -1);
  CHECK(errno == ENOMEM);
  for (const int why : {E2BIG, EPERM, ENOENT}) {
    CHECK(Made(100, why, done) == 1);
    CHECK(done == -1);
    CHECK(errno == why);
  }
}

}  // namespace
}  // namespace latchkey::broker
