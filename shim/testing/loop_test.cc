// Event loops of every kind, and a connection in progress that waits for keys: nothing wakes them
// early, once is enough, and they do not spin.
#include <signal.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Reason;
using wire::Type;
using wire::Verdict;

const std::string kBegun = Line("connect", EINPROGRESS) + "early 0\nready\n";

std::string AnyLoop() {
  return GENERATE(as<std::string>(), "loop-poll", "loop-select", "loop-epoll", "loop-epoll-edge");
}

TEST_CASE("a connection that gets its keys: no wake-up before, one then, and none for nothing") {
  FakeBroker broker;
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  const std::string loop = AnyLoop();
  INFO(loop);
  // Bare it is the same while the server's queue is full.
  for (const bool bare : {true, false}) {
    Server own(Server::Manner::kFull);
    Probe probe(loop, own.port(), bare ? std::map<std::string, std::string>{} : In(broker));
    CHECK(probe.ReadUntil("ready") == kBegun);
    own.Open();
    probe.Continue();
    CHECK(probe.ReadUntil("error 0") == "error 0\n");
    probe.Signal(SIGKILL);  // that server is silent
  }
}

TEST_CASE("a connection with its keys at hand: octets and end wake it, nothing else") {
  FakeBroker broker;
  Server server;
  broker.Set(Type::kConnect, {.verdict = Verdict::kLatched});
  const std::string loop = AnyLoop();
  INFO(loop);
  Probe probe(loop, server.port(), In(broker));
  const std::string begun = probe.ReadUntil("ready");
  CHECK(begun == Line("connect", EINPROGRESS) + "early 1\nready\n");
  probe.Continue();
  CHECK(probe.Finish() == "error 0\nread 0\nread 0\nspun 0\n");
}

TEST_CASE("a connection that is refused: one wake-up, with the errno of the refusal") {
  FakeBroker broker;
  Server server(Server::Manner::kFull);
  broker.Set(Type::kConnect, {.verdict = Verdict::kLarval});
  const std::string loop = AnyLoop();
  INFO(loop);
  Probe probe(loop, server.port(), In(broker));
  CHECK(probe.ReadUntil("ready") == kBegun);
  broker.Refuse(Reason::kAcquireTimeout);
  probe.Continue();
  CHECK(probe.Finish() == Line("error", ETIMEDOUT) + "spun 0\n");
}

}  // namespace
}  // namespace latchkey::testing
