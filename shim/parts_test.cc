#include "shim/parts.h"

#include <catch2/catch.hpp>

namespace latchkey::shim {
namespace {

TEST_CASE("A part waits until the rest is sent, or lost") {
  NoteSent(3, 0);
  CHECK_FALSE(any_parts);
  CHECK_FALSE(TakePart(3));
  NoteSent(3, MSG_MORE);
  NoteSent(4, 0);
  CHECK(any_parts);
  CHECK_FALSE(TakePart(4));
  CHECK(TakePart(3));
  CHECK_FALSE(TakePart(3));
  NoteSent(3, MSG_MORE);
  NoteSent(3, 0);
  CHECK_FALSE(TakePart(3));
}

TEST_CASE("What is corked waits, too, until it is not any more") {
  NoteCork(5, true);
  CHECK_FALSE(TakePart(5));
  NoteSent(5, 0);
  CHECK(TakePart(5));
  NoteSent(5, 0);
  NoteCork(5, false);
  CHECK_FALSE(TakePart(5));
  NoteSent(5, 0);
  CHECK_FALSE(TakePart(5));
}

TEST_CASE("A new socket has none") {
  NoteCork(6, true);
  NoteSent(6, MSG_MORE);
  FreshParts(6);
  CHECK_FALSE(TakePart(6));
  NoteSent(6, 0);
  CHECK_FALSE(TakePart(6));
}

}  // namespace
}  // namespace latchkey::shim
