#include "shim/held.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "shim/fd_bits.h"

namespace latchkey::shim {
namespace {

// True when a hint about `fd` is taken, and forgotten again.
bool Takes(int fd) {
  NoteHeld(fd);
  const bool taken = IsHeld(fd);
  ForgetHeld(fd);
  return taken && !IsHeld(fd);
}

TEST_CASE("No hint is taken before the memory is known to be this process's") {
  NoteHeld(3);
  NoteFree(4);
  CHECK_FALSE(IsHeld(3));
  CHECK_FALSE(IsFree(4));
  OwnHints();
  CHECK(Takes(3));
}

TEST_CASE("A hint is about its own descriptor, and one that has no bit never has one") {
  for (const int fd : {0, 63, 64, kFdLimit - 1}) {
    INFO(fd);
    NoteHeld(fd);
    CHECK(IsHeld(fd));
    CHECK_FALSE(IsHeld(fd == 0 ? 1 : fd - 1));
    CHECK_FALSE(IsFree(fd));
    ForgetHeld(fd);
    CHECK_FALSE(IsHeld(fd));
  }
  for (const int fd : {-1, kFdLimit, 1 << 30}) CHECK_FALSE(Takes(fd));
}

TEST_CASE("What is not held may come to be, and both are forgotten together") {
  NoteFree(5);
  CHECK(IsFree(5));
  NoteHeld(5);
  CHECK(IsHeld(5));
  CHECK_FALSE(IsFree(5));
  NoteFree(6);
  ForgetHeldRange(6, ~0U);
  CHECK_FALSE(IsFree(6));
  CHECK(IsHeld(5));
  ForgetHeldRange(0, 5);
  CHECK_FALSE(IsHeld(5));
}

TEST_CASE("A range is forgotten to its very ends") {
  for (const int fd : {62, 63, 64, 65, 500, kFdLimit - 1}) NoteHeld(fd);
  ForgetHeldRange(63, 64);
  for (const int fd : {62, 65, 500, kFdLimit - 1}) CHECK(IsHeld(fd));
  CHECK_FALSE(IsHeld(63));
  CHECK_FALSE(IsHeld(64));
  ForgetHeldRange(65, ~0U);
  CHECK(IsHeld(62));
  for (const int fd : {65, 500, kFdLimit - 1}) CHECK_FALSE(IsHeld(fd));
  ForgetHeld(62);
}

TEST_CASE("A child that shares the memory takes none; one of fork does") {
  const pid_t sharing = vfork();
  if (sharing == 0) {
    NoteHeld(7);
    _exit(0);
  }
  waitpid(sharing, nullptr, 0);
  CHECK_FALSE(IsHeld(7));
  const pid_t apart = fork();
  if (apart == 0) _exit(Takes(7) ? 0 : 1);
  int status = 0;
  waitpid(apart, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("Of what stdio has none is taken, and none at all once they are stopped") {
  NoteHeld(8);
  NeverHeld(8);
  CHECK_FALSE(IsHeld(8));
  CHECK_FALSE(Takes(8));
  ForgetHeld(8);
  CHECK_FALSE(Takes(8));
  FreshHeld(8);
  CHECK(Takes(8));
  CHECK(Takes(9));
  NoteHeld(9);
  StopHints();
  CHECK_FALSE(IsHeld(9));
  CHECK_FALSE(Takes(9));
}

}  // namespace
}  // namespace latchkey::shim
