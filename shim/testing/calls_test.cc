// The rarer calls, and the common ones made by their numbers, through syscall().
#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;
using wire::Verdict;

TEST_CASE("close_range that only marks leaves everything open, and the connection to the broker") {
  FakeBroker broker;
  Server server;
  CHECK(Run("call-mark-range", broker, server) ==
        "close_range 0\nmore 0\nmarked 1\nbelow 0\nconnect 0\nconnect 0\n");
  CHECK(broker.Count(Type::kAttach) == 1);
}

TEST_CASE("sendfile and splice say ECONNRESET of a broken latch, and else what the kernel says") {
  FakeBroker broker;
  Server server;
  const bool broken = GENERATE(true, false);
  if (broken) broker.SetTrouble(wire::Trouble::kBroken);
  const int sent = broken ? ECONNRESET : EPIPE;
  CHECK(Run("call-moved", broker, server) ==
        "connect 0\n" + Line("sendfile", sent) + Line("sendfile64", sent) + "offsets 0\n" +
            Line("splice to", sent) + Line("splice from", broken ? ECONNRESET : 0) +
            "splice nothing 0\n");
}

}  // namespace
}  // namespace latchkey::testing
