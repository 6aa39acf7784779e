// sharing = "unique": SAs of one flow's own.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

policy::Rule UniqueRule() {
  policy::Rule rule = ProtectRule({"bob"});
  rule.protection.unique = true;
  return rule;
}

struct Unique : Broker {
  explicit Unique(policy::Rule rule = UniqueRule()) : Broker(MakePolicy({std::move(rule)})) {
    keys.negotiates = true;
  }
  // A pair for the flow between a local and a remote port.
  std::vector<Sa> Own(uint32_t reqid, uint16_t local, uint16_t remote, uint16_t bits = 256) {
    keys.Name(reqid, "bob");
    std::vector<Sa> pair = kernel.AddPair(reqid, "10.9.0.2", bits);
    for (Sa& sa : pair) {
      const bool out = sa.source == Address::Parse("10.9.0.1").value();
      Selector& selector = sa.selector;
      selector.family = Family::kV4;
      selector.source = {sa.source, 32};
      selector.destination = {sa.key.destination, 32};
      selector.protocol = kProtocolTcp;
      selector.source_port = out ? local : remote;
      selector.destination_port = out ? remote : local;
      selector.source_mask = selector.destination_mask = 0xffff;
      for (Sa& each : kernel.sad) {
        if (each.key == sa.key) each = sa;
      }
    }
    Hear(pair);
    return pair;
  }
  uint16_t PortOf(int fd) { return SocketOf(fd).facts.local.port; }
  Answer Begin(int fd, uint16_t port = 443) {
    return engine->Connect(client, fd, fd, At("10.9.0.2", port));
  }
  // What the program was told of its ticket.
  Answer Told(uint64_t ticket) { return observer.answers.at(ticket); }
};

TEST_CASE("A wide SA does not serve a flow that wants its own: it is asked for, the port known") {
  Unique broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Begin(fd);
  REQUIRE(answer.verdict == Verdict::kWait);
  REQUIRE(broker.keys.acquired.size() == 1);
  const Flow flow = broker.keys.acquired[0];
  CHECK(flow.local.port != 0);
  CHECK(flow.local.port == broker.PortOf(fd));
  CHECK(flow.local.address == Address::Parse("10.9.0.1").value());
  SECTION("it comes: pinned by SPI, and released at the end") {
    const std::vector<Sa> own = broker.Own(9, flow.local.port, 443);
    broker.Negotiated("10.9.0.2");
    REQUIRE(broker.Told(answer.ticket).verdict == Verdict::kLatched);
    const uint64_t id = broker.Told(answer.ticket).latch;
    CHECK(broker.LatchOf(id).spi_out == own[0].key.spi);
    CHECK(broker.LatchOf(id).pin == Pin::kSpi);
    CHECK(broker.keys.released.empty());
    broker.SocketOf(fd).facts.tcp_state = 7;
    broker.engine->Release(broker.client, fd);
    CHECK(broker.keys.released == std::vector<Flow>{flow});
  }
  SECTION("charon makes a wider one: no-sa, and what was made is released") {
    broker.Keyed(9, "bob", "10.9.0.2");
    broker.Negotiated("10.9.0.2");
    CHECK(broker.Told(answer.ticket).reason == Reason::kNoSa);
    CHECK(broker.keys.released == std::vector<Flow>{flow});
  }
  SECTION("another flow's own is none of it") {
    broker.Own(9, static_cast<uint16_t>(flow.local.port + 1), 443);
    broker.Negotiated("10.9.0.2");
    CHECK(broker.Told(answer.ticket).reason == Reason::kNoSa);
  }
  SECTION("nobody waits any more") {
    broker.engine->Cancel(answer.ticket);
    CHECK(broker.keys.released == std::vector<Flow>{flow});
  }
}

TEST_CASE(
    "A wide SA of another protection does not contradict a flow's own, one of another peer does") {
  Unique broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Begin(fd);
  broker.Own(9, broker.PortOf(fd), 443, 128);
  broker.Negotiated("10.9.0.2");
  const uint64_t id = broker.Told(answer.ticket).latch;
  REQUIRE(id != 0);
  CHECK(broker.LatchOf(id).protection.key_bits == 128);
  broker.KeysChanged();
  CHECK(broker.LatchOf(id).state == State::kEstablished);
  broker.Keyed(11, "mallory", "10.9.0.2");
  CHECK(broker.LatchOf(id).state == State::kBroken);
  CHECK(broker.LatchOf(id).reason == Reason::kConflictSa);
}

TEST_CASE("A flow's own SAs go: the wide ones do not take their place") {
  Unique broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Begin(fd);
  const std::vector<Sa> own = broker.Own(9, broker.PortOf(fd), 443);
  broker.Negotiated("10.9.0.2");
  const uint64_t id = broker.Told(answer.ticket).latch;
  broker.engine->Tick(true);
  broker.Gone(own);
  broker.Pass(Options{}.sa_grace_ms);
  CHECK(broker.LatchOf(id).reason == Reason::kNoSa);
}

TEST_CASE("Who shares does not use, and is not contradicted by, what is of other flows") {
  Unique broker(ProtectRule({"bob"}));
  const std::vector<Sa> wide = broker.Keyed(7, "bob", "10.9.0.2");
  broker.Own(9, 40'001, 443, 128);
  const Answer answer = broker.Connect(broker.Socket());
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(answer.latch).spi_out == wide[0].key.spi);
  broker.Own(10, 40'002, 443, 128);
  CHECK(broker.LatchOf(answer.latch).state == State::kEstablished);
}

TEST_CASE("A server that shares answers each flow under its own SA, where it has one") {
  Unique broker(ProtectRule({"bob"}));
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> own = broker.Own(9, 80, 40'000);
  const auto answers = [&broker](uint32_t reqid, uint16_t port) {
    return std::ranges::any_of(broker.kernel.guards, [&](const Guard& guard) {
      return guard.out && guard.reqid == reqid && guard.selector.destination_port == port;
    });
  };
  CHECK(answers(7, 0));
  CHECK(answers(9, 40'000));
  const Answer mine = broker.Accept(broker.Child(listener, "10.9.0.2", 40'000));
  REQUIRE(mine.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(mine.latch).spi_out == own[0].key.spi);
  CHECK(broker.LatchOf(mine.latch).pin == Pin::kSpi);
  const Answer other = broker.Accept(broker.Child(listener, "10.9.0.2", 40'005));
  REQUIRE(other.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(other.latch).reqid == 7);
}

TEST_CASE("A server that asks for SAs of the flow's own refuses who comes under a wide one") {
  Unique broker;
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 40'000)).reason == Reason::kNoSa);
  CHECK(broker.keys.acquired.empty());
  broker.Own(9, 80, 40'001);
  CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 40'001)).verdict == Verdict::kLatched);
}

TEST_CASE("A broker after this one releases what a taken-over latch had of its own") {
  Unique broker;
  const int fd = broker.Socket();
  const Answer answer = broker.Begin(fd);
  const Flow flow = broker.keys.acquired.at(0);
  broker.Own(9, flow.local.port, 443);
  broker.Negotiated("10.9.0.2");
  REQUIRE(broker.Told(answer.ticket).verdict == Verdict::kLatched);
  // The journal has the SPIs with which the latch was made; charon keeps the reqid in a rekey.
  const bool rekeyed = GENERATE(false, true);
  if (rekeyed) {
    broker.kernel.RemoveSas(9);
    broker.Own(9, flow.local.port, 443);
  }
  std::vector<Entry> latches;
  for (const auto& [id, entry] : broker.engine->database().entries()) latches.push_back(entry);
  for (Entry& entry : latches) {
    entry.own_sa = false;  // the journal does not keep these
    entry.asked.reset();
  }
  broker.kernel.sockets.clear();
  std::vector<Guard> guards;
  for (const auto& [guard, count] : broker.observer.journal) guards.push_back(guard);
  broker.Restart(guards, latches);
  REQUIRE(broker.started);
  CHECK(broker.keys.released == std::vector<Flow>{flow});
}

}  // namespace
}  // namespace latchkey::broker
