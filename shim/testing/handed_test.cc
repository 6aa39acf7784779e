// Listeners that the program was handed: the broker is asked about them before main(), or when it
// refuses a client because nobody has.
#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Reason;
using wire::Type;
using wire::Verdict;

// What the probe says when accept() showed it the client of that number.
std::string Served(int number) {
  return "listen 0\nerrno 77\nnumber " + std::to_string(number) + "\n";
}

struct World {
  std::string Run(const std::string& name) {
    Probe probe(name, server.port(), In(broker));
    std::string text = probe.Finish();
    errors = probe.errors();
    return text;
  }
  FakeBroker broker;
  Server server;
  std::string errors;
};

TEST_CASE("a listener that a service manager handed over is asked about once, before main") {
  World world;
  CHECK(world.Run("handed") == Served(0));
  CHECK(world.broker.Count(Type::kListen) == 2);  // as it began to listen, and as it was handed
  CHECK(world.errors.empty());
}

TEST_CASE("it is said when it is refused, and the program runs on") {
  World world;
  world.broker.Set(Type::kListen,
                   {.verdict = Verdict::kRefused, .error = EACCES, .reason = Reason::kConflictSpd});
  world.broker.Set(Type::kListen, {Verdict::kLatched, 0}, 1);
  CHECK(world.Run("handed") == Served(0));
  CHECK(world.errors ==
        "latchkey: a listener that it was handed is not latched: descriptor 3: conflict-spd\n");
}

TEST_CASE("what else is handed over is not asked about, and no more than there is") {
  World world;
  CHECK(world.Run("handed-odd") == "listen 0\nconnect 0\nerrno 77\nnumber 0\n");
  CHECK(world.broker.Count(Type::kListen) == 2);
  CHECK(world.errors.empty());
}

TEST_CASE("one that is handed to another, or by no number, is not asked about") {
  World world;
  const std::string name = GENERATE("handed-other", "handed-bad");
  INFO(name);
  CHECK(world.Run(name) == Served(0));
  CHECK(world.broker.Count(Type::kListen) == 1);
}

TEST_CASE("where no rule could be about it nothing is asked") {
  World world;
  world.broker.page().flags = wire::kPageNoRules;
  CHECK(world.Run("handed") == Served(0));
  CHECK(world.broker.Count(Type::kListen) == 0);
}

TEST_CASE("a client of one that nobody latched is refused, and the listener asked about") {
  World world;
  const bool unlatched = GENERATE(true, false);
  world.broker.Set(Type::kAccept,
                   {.verdict = Verdict::kRefused,
                    .error = EACCES,
                    .reason = unlatched ? Reason::kUnlatchedListener : Reason::kPeerMismatch},
                   1);
  CHECK(world.Run("handed-other") == Served(1));
  CHECK(world.broker.Count(Type::kListen) == (unlatched ? 2 : 1));
}

TEST_CASE("where that is refused the next client does not have it asked again at once") {
  World world;
  world.broker.Set(
      Type::kAccept,
      {.verdict = Verdict::kRefused, .error = EACCES, .reason = Reason::kUnlatchedListener}, 2);
  world.broker.Set(Type::kListen,
                   {.verdict = Verdict::kRefused, .error = EACCES, .reason = Reason::kConflictSpd});
  world.broker.Set(Type::kListen, {Verdict::kLatched, 0}, 1);
  CHECK(world.Run("handed-other") == Served(2));
  CHECK(world.broker.Count(Type::kListen) == 2);
}

}  // namespace
}  // namespace latchkey::testing
