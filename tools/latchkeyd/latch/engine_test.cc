#include "tools/latchkeyd/latch/engine.h"

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;
using wire::Verdict;

TEST_CASE("a connect to a keyed peer is pinned before it is answered") {
  Broker broker(MakePolicy({ProtectRule({"bob"})}));
  REQUIRE(broker.started);
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  REQUIRE(answer.verdict == Verdict::kLatched);
  const FakeKernel::Socket& socket = broker.kernel.sockets.at(fd);
  REQUIRE(socket.policy);
  CHECK(socket.policy->kind == Kind::kProtect);
  CHECK(socket.policy->reqid == 7);
  CHECK(socket.policy->spi_out == 0);
  CHECK(socket.policy->family == Family::kV4);
  CHECK((socket.facts.mark & 0x80000000) != 0);
  const Entry* entry = broker.engine->database().Find(answer.latch);
  CHECK(entry->latch.identity.peer_id == "bob");
  CHECK(entry->latch.protection.key_bits == 256);
  CHECK(entry->latch.rule == "all");
  CHECK(entry->latch.pid == 4321);
}

TEST_CASE("an identity that the reqid does not fix is pinned by SPI") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.keys.by_reqid.at(7).verified.static_reqid = false;
  const int fd = broker.Socket();
  REQUIRE(broker.Connect(fd).verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(fd).policy->spi_out != 0);
  CHECK(broker.kernel.sockets.at(fd).policy->spi_in != 0);
}

TEST_CASE("every reason for which a connect is refused") {
  Broker broker(MakePolicy({ProtectRule({"bob"})}));
  const int fd = broker.Socket();
  const auto refused = [&](Reason reason) {
    const Answer answer = broker.Connect(fd);
    CHECK(answer.verdict == Verdict::kRefused);
    CHECK(wire::ReasonWord(answer.reason) == std::string(wire::ReasonWord(reason)));
    CHECK(broker.observer.last_refusal == reason);
    CHECK(broker.engine->database().entries().empty());
  };
  SECTION("no SA") { refused(Reason::kNoSa); }
  SECTION("an SA one way only") {
    broker.keys.Name(7, "bob");
    broker.engine->OnEvents(
        {{KernelEvent::Kind::kSaAdded, broker.kernel.AddPair(7, "10.9.0.2")[0]}});
    refused(Reason::kNoSa);
  }
  SECTION("somebody else") {
    broker.Keyed(7, "mallory", "10.9.0.2");
    refused(Reason::kPeerMismatch);
  }
  SECTION("nobody") {
    broker.Keyed(7, "bob", "10.9.0.2");
    broker.keys.by_reqid.clear();
    refused(Reason::kPeerUnknown);
  }
  SECTION("two identities") {
    broker.Keyed(7, "bob", "10.9.0.2");
    broker.Keyed(9, "mallory", "10.9.0.2");
    refused(Reason::kAmbiguousPeer);
  }
  SECTION("two protections") {
    broker.Keyed(7, "bob", "10.9.0.2");
    broker.Keyed(9, "bob", "10.9.0.2", 128);
    refused(Reason::kConflictSa);
  }
  SECTION("a reqid of 0 pins nothing") {
    broker.Keyed(0, "bob", "10.9.0.2");
    refused(Reason::kNoSa);
  }
  SECTION("another namespace") {
    broker.Keyed(7, "bob", "10.9.0.2");
    broker.kernel.sockets.at(fd).facts.own_netns = false;
    refused(Reason::kForeignNetns);
  }
  SECTION("not TCP") {
    broker.kernel.sockets.at(fd).facts.stream_tcp = false;
    refused(Reason::kUnsupported);
  }
}

TEST_CASE("weaker protection than asked for is refused") {
  policy::Rule rule = ProtectRule();
  rule.protection.min_key_bits = 256;
  Broker broker(MakePolicy({rule}));
  broker.Keyed(7, "bob", "10.9.0.2", 128);
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kWeakProtection);
}

TEST_CASE("the kernel failing at any step leaves nothing half-done and nothing in clear") {
  for (int step = 1; step <= 3; ++step) {
    Broker broker;
    broker.Keyed(7, "bob", "10.9.0.2");
    const int fd = broker.Socket();
    broker.kernel.fail_after = step;
    const Answer answer = broker.Connect(fd);
    if (step == 3) {
      CHECK(answer.verdict == Verdict::kLatched);
      continue;
    }
    INFO("step " << step);
    CHECK(answer.verdict == Verdict::kRefused);
    CHECK(broker.engine->database().entries().empty());
    REQUIRE(broker.kernel.sockets.at(fd).policy);
    CHECK(broker.kernel.sockets.at(fd).policy->kind == Kind::kBlock);
  }
}

TEST_CASE("An address of ours is another host's where the routes lead away from here") {
  Broker broker;
  for (const std::string device : {"eth0", ""}) {  // "": nobody can tell
    broker.kernel.devices["10.9.0.1"] = device;
    CHECK(broker.Connect(broker.Socket(), "10.9.0.1").reason == Reason::kNoSa);
  }
  broker.kernel.devices["127.0.0.1"] = "";  // loopback is down
  CHECK(broker.Connect(broker.Socket(), "127.0.0.1").device == 1);
  broker.kernel.devices.clear();
  const Answer answer = broker.Connect(broker.Socket(), "10.9.0.1");
  CHECK(answer.verdict == Verdict::kLocal);
  CHECK(answer.device == 1);
}

TEST_CASE("bypassed and same-host flows are left to the SPD, and a used socket is cleaned first") {
  policy::Rule bypass;
  bypass.name = "dns";
  bypass.remote = {Prefix::Parse("10.9.0.3").value()};
  bypass.action = policy::Action::kBypass;
  Broker broker(MakePolicy({bypass, ProtectRule()}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  CHECK(broker.Connect(fd, "10.9.0.3").verdict == Verdict::kBypass);
  CHECK_FALSE(broker.kernel.sockets.at(fd).policy);
  CHECK(broker.Connect(broker.Socket(), "127.0.0.1").verdict == Verdict::kLocal);
  CHECK(broker.Connect(broker.Socket(), "10.9.0.1").verdict == Verdict::kLocal);
  const int used = broker.Socket();
  REQUIRE(broker.Connect(used).verdict == Verdict::kLatched);
  CHECK(broker.Connect(used, "10.9.0.3").verdict == Verdict::kBypass);
  CHECK(broker.kernel.sockets.at(used).policy->kind == Kind::kClear);
  CHECK((broker.kernel.sockets.at(used).facts.mark & 0x80000000) == 0);
  CHECK(broker.engine->database().entries().empty());
}

TEST_CASE("a conflicting SA breaks the latch: told first, blocked, then aborted") {
  struct Case {
    const char* peer;
    uint16_t bits;
    bool breaks;
  };
  for (const Case& c :
       {Case{"mallory", 256, true}, Case{"bob", 128, true}, Case{"bob", 256, false}}) {
    Broker broker;
    broker.Keyed(7, "bob", "10.9.0.2");
    const int fd = broker.Socket();
    const Answer answer = broker.Connect(fd);
    broker.Keyed(9, c.peer, "10.9.0.2", c.bits);
    INFO(c.peer << " " << c.bits);
    CHECK(broker.StateOf(answer.latch) == (c.breaks ? State::kBroken : State::kEstablished));
    CHECK(broker.kernel.sockets.at(fd).aborted == c.breaks);
    CHECK((broker.kernel.sockets.at(fd).policy->kind == Kind::kBlock) == c.breaks);
    CHECK(broker.kernel.borrowed == 0);
    if (c.breaks) {
      CHECK(broker.engine->database().Find(answer.latch)->latch.reason == Reason::kConflictSa);
      CHECK(broker.observer.told.at({answer.latch, State::kBroken}) == 1);
    }
  }
}

TEST_CASE("an SA that names nobody conflicts; one for another address does not") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const Answer answer = broker.Connect(broker.Socket());
  broker.Keyed(9, "mallory", "10.9.0.3");
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  const Sa nobody = broker.kernel.AddPair(11, "10.9.0.2")[1];
  broker.engine->OnEvents({{KernelEvent::Kind::kSaAdded, nobody}});
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
}

TEST_CASE("without its SA a latch stalls, moves again when it is back, and breaks in the end") {
  Broker broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  broker.Unkeyed(pair);
  CHECK(broker.observer.log.back() == "latch 1 stalls");
  broker.kernel.now += 14'000;
  broker.engine->Tick();
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  const std::vector<Sa> again = broker.Keyed(7, "bob", "10.9.0.2");
  CHECK(broker.observer.log.back() == "latch 1 moves");
  broker.kernel.now += 14'000;
  broker.engine->Tick();
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  broker.Unkeyed(again);
  broker.kernel.now += 15'000;
  broker.engine->Tick();
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
  CHECK(broker.engine->database().Find(answer.latch)->latch.reason == Reason::kNoSa);
  CHECK(broker.kernel.sockets.at(fd).aborted);
}

TEST_CASE("lost events: everything is read anew, and what changed meanwhile is found") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const Answer answer = broker.Connect(broker.Socket());
  broker.keys.Name(9, "mallory");
  broker.kernel.AddPair(9, "10.9.0.2");
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
}

TEST_CASE("lost events and no way to read anew: what cannot be vouched for is broken") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const Answer answer = broker.Connect(broker.Socket());
  broker.kernel.fail_after = 1;
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  CHECK(broker.engine->database().Find(answer.latch)->latch.reason == Reason::kSuspectGap);
}

TEST_CASE("closed sockets are reaped; aborted ones stay as long as the program holds them") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int closed = broker.Socket(), broken = broker.Socket();
  const Answer first = broker.Connect(closed);
  const Answer second = broker.Connect(broken, "10.9.0.2", 444);
  broker.engine->Tick(true);
  CHECK(broker.engine->database().Find(first.latch)->latch.flow.local.port == 50'000 + closed);
  broker.kernel.sockets.at(closed).live = broker.kernel.sockets.at(closed).held = false;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(first.latch) == State::kClosed);
  broker.Keyed(9, "mallory", "10.9.0.2");
  broker.kernel.now += 60'000;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(second.latch) == State::kBroken);
  broker.kernel.sockets.at(broken).held = false;
  broker.kernel.now += 60'000;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(second.latch) == State::kClosed);
}

TEST_CASE("a latch without its SA outlives the time-out of its socket, and then breaks") {
  Broker broker;
  const std::vector<Sa> pair = broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  broker.engine->Tick(true);  // seen
  broker.Unkeyed(pair);
  broker.kernel.sockets.at(fd).live = false;  // TCP_USER_TIMEOUT: closed, still held
  broker.kernel.now += 11'000;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  broker.kernel.now += 11'000;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
}

TEST_CASE("what the kernel answers for a flow leaves under its SA, until TIME_WAIT is over") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd);
  Latch latch = broker.engine->database().Find(answer.latch)->latch;
  const Guard guard = FlowGuard(latch, Options{}.guard_mark);
  CHECK(guard.reqid == 7);
  CHECK(guard.selector.destination_port == 443);
  CHECK(broker.kernel.HasGuard(guard));
  broker.engine->Tick(true);
  broker.kernel.sockets.at(fd).live = broker.kernel.sockets.at(fd).held = false;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
  broker.kernel.now += 60'000;
  broker.engine->Tick();
  CHECK(broker.kernel.HasGuard(guard));
  broker.kernel.now += 5'000;
  broker.engine->Tick();
  CHECK_FALSE(broker.kernel.HasGuard(guard));

  // A broken one answers nothing at all.
  const int other = broker.Socket();
  const Answer second = broker.Connect(other);
  CHECK(broker.kernel.HasGuard(guard));
  broker.Keyed(9, "mallory", "10.9.0.2");
  CHECK(broker.StateOf(second.latch) == State::kBroken);
  CHECK_FALSE(broker.kernel.HasGuard(guard));
}

TEST_CASE("a latch whose socket has not connected yet is not reaped") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int fd = broker.Socket();
  const Answer answer = broker.engine->Connect(broker.client, fd, fd, At("10.9.0.2", 443));
  for (int i = 0; i < 5; ++i) {
    broker.kernel.now += 20'000;
    broker.engine->Tick(true);
  }
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  broker.kernel.sockets.at(fd).held = false;
  broker.kernel.now += 20'000;
  broker.engine->Tick(true);
  CHECK(broker.StateOf(answer.latch) == State::kClosed);
}

TEST_CASE("a clean stop leaves the SPD as it was") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Connect(broker.Socket());
  broker.Listen(broker.Listener("::", 8080));
  CHECK(broker.kernel.guards.size() > 2);
  broker.engine->Stop();
  CHECK(broker.kernel.guards.empty());
  CHECK(broker.observer.journal.empty());
}

TEST_CASE("after a restart each latch is verified again, or broken") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  const Answer kept = broker.Connect(broker.Socket());
  const int gone_fd = broker.Socket(), lost_fd = broker.Socket();
  const Answer gone = broker.Connect(gone_fd, "10.9.0.2", 444);
  const Answer lost = broker.Connect(lost_fd, "10.9.0.3", 445);
  std::vector<Entry> journal;
  for (const auto& [id, entry] : broker.engine->database().entries()) journal.push_back(entry);
  std::vector<Guard> guards;
  for (const auto& [guard, count] : broker.observer.journal) guards.push_back(guard);
  guards.push_back(guards.front());
  guards.back().selector.source_port = 99;  // written down, never installed
  broker.kernel.sockets.at(gone_fd).live = broker.kernel.sockets.at(gone_fd).held = false;
  broker.keys.Name(8, "mallory");  // what was carol's is another's now
  broker.Restart(guards, journal);
  REQUIRE(broker.started);
  CHECK(broker.StateOf(kept.latch) == State::kEstablished);
  CHECK(broker.StateOf(gone.latch) == State::kClosed);
  CHECK(broker.StateOf(lost.latch) == State::kBroken);
  CHECK(broker.kernel.sockets.at(lost_fd).aborted);
  CHECK(broker.kernel.guards.size() == 3);  // the standing ones, and the kept latch's
}

TEST_CASE("one user cannot have more latches than allowed") {
  Broker broker;
  Options options;
  options.latches_per_uid = 1;
  broker.engine = std::make_unique<Engine>(broker.kernel, broker.keys, broker.observer, options);
  broker.kernel.guards.clear();
  REQUIRE(broker.engine->Start({}));
  broker.Keyed(7, "bob", "10.9.0.2");
  const int first = broker.Socket();
  CHECK(broker.Connect(first).verdict == Verdict::kLatched);
  broker.Pass(2000);
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kLimit);
  // One that was closed is not looked for at each connect, but before long.
  broker.kernel.sockets.at(first).live = false;
  broker.kernel.sockets.at(first).held = false;
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kLimit);
  broker.kernel.now += 1000;
  CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kLatched);
}

}  // namespace
}  // namespace latchkey::broker
