// Programs that are short of descriptors: the shim's own never takes a standard stream's place, and
// where there is none for it nothing passes.
#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;

// Two connections, with `closed` of the standard streams closed before each.
std::string Work(int closed, int link) {
  const std::string one = Line("closed", closed) + "connect 0\n";
  return one + one + "more 0\n" + Line("open", link);
}

TEST_CASE("at a low limit a closed standard input stays closed, and the connection is reused") {
  FakeBroker broker;
  Server server;
  CHECK(Run("scarce-limit", broker, server) == Work(1, 40));
  CHECK(broker.Count(Type::kConnect) == 2);
  // Of the program, and of what it became.
  CHECK(broker.Count(Type::kAttach) == 2);
}

TEST_CASE("closed standard streams stay closed at a usual limit") {
  FakeBroker broker;
  Server server;
  CHECK(Run("scarce-streams", broker, server) == Work(3, 960));
  CHECK(broker.Count(Type::kConnect) == 2);
  CHECK(broker.Count(Type::kAttach) == 2);
}

TEST_CASE("a child that has no number for its connection to the broker connects to nobody") {
  FakeBroker broker;
  Server server;
  CHECK(Run("scarce-child", broker, server) == "parent 0\n" + Line("none", EHOSTUNREACH) +
                                                   Line("stream", EHOSTUNREACH) +
                                                   "closed 1\nenough 0\nchild 0\n");
  // The parent's, and the child's last.
  CHECK(broker.Count(Type::kConnect) == 2);
  CHECK(broker.Count(Type::kAttach) == 2);
}

}  // namespace
}  // namespace latchkey::testing
