#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

TEST_CASE("the administrator breaks an established latch once") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.engine->AdminBreak(answer.latch) == Reason::kNone);
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
  CHECK(broker.kernel.sockets.at(fd).aborted);
  REQUIRE(broker.kernel.sockets.at(fd).policy);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kBlock);
  const Entry* entry = broker.engine->database().Find(answer.latch);
  CHECK(entry->latch.reason == Reason::kAdmin);
  CHECK(entry->admin_broken);
  CHECK(broker.observer.told[{answer.latch, State::kBroken}] == 1);
  CHECK(broker.engine->AdminBreak(answer.latch) == Reason::kBadRequest);
  CHECK(broker.observer.told[{answer.latch, State::kBroken}] == 1);
}

TEST_CASE("a latch in clear is the administrator's to break too") {
  policy::Rule rule = ProtectRule();
  rule.action = policy::Action::kProtectOrBypass;
  Broker broker(MakePolicy({rule}));
  const Answer answer = broker.Connect(broker.Socket());
  REQUIRE(answer.verdict == Verdict::kLatched);
  REQUIRE(broker.engine->database().Find(answer.latch)->latch.clear);
  CHECK(broker.engine->AdminBreak(answer.latch) == Reason::kNone);
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
}

TEST_CASE("what cannot be broken is left as it is") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.engine->AdminBreak(0) == Reason::kBadRequest);
  CHECK(broker.engine->AdminBreak(99) == Reason::kBadRequest);
  const Answer listening = broker.Listen(broker.Listener());
  REQUIRE(listening.verdict == Verdict::kLatched);
  CHECK(broker.engine->AdminBreak(listening.latch) == Reason::kBadRequest);
  CHECK(broker.StateOf(listening.latch) == State::kListener);
}

TEST_CASE("only what the administrator suspended is resumed") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const Answer answer = broker.Connect(broker.Socket());
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.engine->AdminResume(99) == Reason::kBadRequest);
  CHECK(broker.engine->AdminResume(answer.latch) == Reason::kBadRequest);  // ESTABLISHED
  REQUIRE(broker.engine->AdminBreak(answer.latch) == Reason::kNone);
  // on_break = "reset": the connection is gone.
  CHECK(broker.engine->AdminResume(answer.latch) == Reason::kBadRequest);
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
}

}  // namespace
}  // namespace latchkey::broker
