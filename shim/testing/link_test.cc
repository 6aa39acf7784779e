// How long the shim waits for a broker, with less patience than it has.
#include "shim/link.h"

#include <catch2/catch.hpp>
#include <cerrno>

#include "shim/testing/fake_broker.h"

namespace latchkey::shim {
namespace {

using testing::FakeBroker;
using wire::Type;
using wire::Verdict;

constexpr int kPatienceMs = 200;

int AskFor(const FakeBroker& broker, wire::Received& received, const Limits& limits = {}) {
  uint8_t token[wire::kTokenSize];
  for (size_t i = 0; i < wire::kTokenSize; ++i) {
    token[i] = static_cast<uint8_t>(std::stoi(broker.token().substr(2 * i, 2), nullptr, 16));
  }
  SetBroker(broker.path().c_str());
  SetToken(token);
  SetPatience(kPatienceMs);
  [[maybe_unused]] static const bool owned = (OwnLinks(), true);
  wire::SocketRequest request{};
  request.header = wire::MakeHeader(Type::kConnect, NextSerial());
  return Ask(&request, sizeof(request), -1, Type::kDecision, received, limits);
}

TEST_CASE("patience starts over with every word that there is to wait") {
  FakeBroker broker;
  broker.Set(Type::kConnect, {.waits = 5, .wait_ms = kPatienceMs / 2});
  wire::Received received;
  const int64_t start = NowMs();
  CHECK(AskFor(broker, received) == 0);
  CHECK(received.As<wire::Decision>().verdict == Verdict::kLatched);
  CHECK(NowMs() - start >= 5 * kPatienceMs / 2);
}

TEST_CASE("a broker that hangs is given up, and told so by the end of the connection") {
  FakeBroker broker;
  broker.Set(Type::kConnect, {.verdict = Verdict::kWait, .waits = GENERATE(1, 3), .wait_ms = 50});
  wire::Received received;
  const int64_t start = NowMs();
  CHECK(AskFor(broker, received) == ETIMEDOUT);
  CHECK(NowMs() - start >= kPatienceMs);
  CHECK(NowMs() - start < 10 * kPatienceMs);
  broker.AwaitWaiting(0);
  CHECK(broker.withdrawn() == 1);
  CHECK(broker.Count(Type::kConnect) == 1);
}

TEST_CASE("who has less time than the broker has patience is told apart") {
  FakeBroker broker;
  broker.Set(Type::kConnect, {.verdict = Verdict::kWait, .waits = 1000, .wait_ms = 50});
  wire::Received received;
  const int64_t start = NowMs();
  const Limits limits{.deadline = start + 2 * kPatienceMs};
  CHECK(AskFor(broker, received, limits) == ETIME);
  CHECK(NowMs() >= limits.deadline);
  const Limits no_waiting{.may_wait = false};
  CHECK(AskFor(broker, received, no_waiting) == ECANCELED);
  broker.AwaitWaiting(0);
  CHECK(broker.withdrawn() == 2);
}

TEST_CASE("an answer that came in time counts however late it is read") {
  FakeBroker broker;
  broker.Set(Type::kConnect, {.waits = 1, .wait_ms = 1});
  wire::Received received;
  const Limits long_over{.deadline = 1};
  const int error = AskFor(broker, received, long_over);
  CHECK((error == 0 || error == ETIME));
}

}  // namespace
}  // namespace latchkey::shim
