// What a listener's kernel would answer to a peer whose SA has no name yet is held back, not lost.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

constexpr uint32_t kPlaceholder = 0xffff'fff0;

struct Held : Broker {
  int listener = -1;
  size_t idle = 0;  // guards of a listener without peers

  explicit Held(policy::Rule rule = ProtectRule({"bob"})) : Broker(MakePolicy({std::move(rule)})) {
    keys.by_reqid[7] = Identified::Pending();
    listener = Listener();
    REQUIRE(Listen(listener).verdict == Verdict::kLatched);
    idle = kernel.guards.size();
  }
  // A pair that the key manager has not named yet.
  std::vector<Sa> Unnamed(const std::string& remote = "10.9.0.2", uint32_t reqid = 7) {
    keys.by_reqid[reqid] = Identified::Pending();
    std::vector<Sa> pair = kernel.AddPair(reqid, remote);
    Hear(pair);
    return pair;
  }
  void Named(const std::string& peer = "bob", uint32_t reqid = 7) {
    keys.Name(reqid, peer);
    KeysChanged();
  }
  std::vector<uint32_t> Answers(const std::string& remote = "10.9.0.2") const {
    std::vector<uint32_t> reqids;
    for (const Guard& guard : kernel.guards) {
      const bool to = guard.selector.destination == *Prefix::Parse(remote);
      if (guard.out && Requires(guard.action) && to) reqids.push_back(guard.reqid);
    }
    return reqids;
  }
  bool Holds() const { return Answers() == std::vector{kPlaceholder} && kernel.holding; }
  void CheckNoneHeld() {
    CHECK_FALSE(kernel.holding);
    CHECK(std::ranges::none_of(kernel.guards,
                               [](const Guard& guard) { return guard.reqid == kPlaceholder; }));
    CHECK(observer.journal.size() == kernel.guards.size());
  }
};

TEST_CASE("answers to a peer whose SA is not named yet wait, and leave when it is") {
  Held broker;
  broker.Unnamed();
  CHECK(broker.Holds());
  CHECK(broker.kernel.renewed.empty());
  broker.Named();
  // In its place, so that the kernel lets go what it kept.
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  REQUIRE(broker.kernel.renewed.size() == 1);
  CHECK(broker.kernel.renewed[0].reqid == 7);
  CHECK(broker.kernel.larvals_dropped ==
        std::vector{std::pair{*Address::Parse("10.9.0.1"), Options{}.guard_mark}});
  broker.CheckNoneHeld();
}

TEST_CASE("a peer that may not be answered gets nothing of what waited") {
  Held broker;
  const std::vector<Sa> pair = broker.Unnamed();
  REQUIRE(broker.Holds());
  SECTION("it is somebody else") { broker.Named("mallory"); }
  SECTION("the key manager knows nobody") {
    broker.keys.by_reqid[7] = Identified::Nobody();
    broker.KeysChanged();
  }
  SECTION("its SA goes") { broker.Gone(pair); }
  SECTION("another's is there too") {
    broker.Keyed(8, "mallory", "10.9.0.2");
    broker.Named();
  }
  SECTION("the listener is closed") {
    broker.CloseSocket(broker.listener);
    broker.engine->Tick(true);
    broker.idle = 2;
  }
  SECTION("the broker stops") {
    broker.engine->Stop();
    broker.idle = 0;
  }
  CHECK(broker.kernel.guards.size() == broker.idle);
  CHECK(broker.kernel.renewed.empty());
  CHECK(broker.kernel.larvals_dropped.size() == 1);
  broker.CheckNoneHeld();
}

TEST_CASE("a name that does not come is not waited for longer than accept would") {
  Held broker;
  broker.Unnamed();
  broker.Pass(Options{}.identify_ms - 1);
  CHECK(broker.Holds());
  broker.Pass(1);
  CHECK(broker.kernel.guards.size() == broker.idle);
  broker.CheckNoneHeld();
  // And when it comes after all, it counts.
  broker.Named();
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
}

TEST_CASE("who is accepted before the listener's turn comes gets his entry") {
  Held broker;
  broker.Unnamed();
  const Answer wait = broker.Accept(broker.Child(broker.listener));
  REQUIRE(wait.verdict == Verdict::kWait);
  broker.Named();
  REQUIRE(broker.AnswerTo(wait.ticket));
  CHECK(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLatched);
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  CHECK(broker.engine->database().Find(broker.AnswerTo(wait.ticket)->latch)->guards.size() == 1);
  broker.CheckNoneHeld();
}

TEST_CASE("a rekey leaves a child its entry, and others wait for the new name") {
  Held broker;
  broker.Unnamed();
  broker.Named();
  SECTION("with a child") {
    REQUIRE(broker.Accept(broker.Child(broker.listener)).verdict == Verdict::kLatched);
    broker.Unnamed();
    CHECK(broker.Answers() == std::vector<uint32_t>{7});
  }
  SECTION("without") {
    broker.Unnamed();
    CHECK(broker.Holds());
  }
  broker.Named();
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  broker.CheckNoneHeld();
}

TEST_CASE("two peers wait each for their own name") {
  Held broker(ProtectRule({"bob", "carol"}));
  broker.Unnamed();
  broker.Unnamed("10.9.0.3", 8);
  broker.Named();
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  CHECK(broker.Answers("10.9.0.3") == std::vector{kPlaceholder});
  CHECK(broker.kernel.holding);
  broker.Named("carol", 8);
  CHECK(broker.Answers("10.9.0.3") == std::vector<uint32_t>{8});
  broker.CheckNoneHeld();
}

TEST_CASE("listeners that share a port share what waits") {
  Held broker;
  const int other = broker.Listener();
  REQUIRE(broker.Listen(other).verdict == Verdict::kLatched);
  broker.Unnamed();
  CHECK(broker.Holds());
  SECTION("one is closed meanwhile") {
    broker.CloseSocket(other);
    broker.engine->Tick(true);
    CHECK(broker.Holds());
  }
  broker.Named();
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  broker.CheckNoneHeld();
}

TEST_CASE("only answers that a rule protects wait") {
  policy::Rule rule = ProtectRule({"bob"});
  SECTION("another peer's rule") { rule.remote = {*Prefix::Parse("10.9.0.3")}; }
  Held broker(std::move(rule));
  SECTION("and no longer than there is a listener for them") {
    broker.CloseSocket(broker.listener);
    broker.engine->Tick(true);
  }
  SECTION("nor those of a tunnel, which are not known before its name") {
    broker.kernel.AddPair(7, "10.9.0.2");
    broker.kernel.Tunnel(7, "192.168.2.2", /*bare=*/true);
    broker.Hear(broker.kernel.sad);
    broker.kernel.sad.clear();
    CHECK_FALSE(broker.kernel.holding);
    return;
  }
  broker.Unnamed();
  broker.CheckNoneHeld();
}

TEST_CASE("where the kernel does not change the entry, another takes its place") {
  Held broker;
  broker.Unnamed();
  broker.kernel.fail_after = 1;
  broker.Named();
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  broker.CheckNoneHeld();
}

TEST_CASE("a connect that waits for its keys and answers that wait for a name") {
  Held broker;
  broker.keys.negotiates = true;
  broker.keys.Name(9, "bob");
  const int fd = broker.Socket();
  const Answer wait = broker.Begin(fd, /*nonblocking=*/true, "10.9.0.3");
  REQUIRE(wait.verdict == Verdict::kWait);
  broker.Pass(Options{}.inline_ms);
  REQUIRE(broker.AnswerTo(wait.ticket)->verdict == Verdict::kLarval);
  broker.Unnamed();
  SECTION("the name comes first") {
    broker.Named();
    CHECK(broker.kernel.holding);
    broker.Hear(broker.kernel.AddPair(9, "10.9.0.3"));
  }
  SECTION("the keys come first") {
    broker.Hear(broker.kernel.AddPair(9, "10.9.0.3"));
    CHECK(broker.Holds());
    broker.Named();
  }
  CHECK(broker.Answers() == std::vector<uint32_t>{7});
  CHECK_FALSE(broker.kernel.holding);
}

TEST_CASE("a broker that is killed leaves nothing that waits to its successor") {
  Held broker;
  broker.Unnamed();
  broker.kernel.holding = false;  // what becomes of that is said in SECURITY.md
  broker.keys.by_reqid[7] = Identified::Nobody();
  broker.Crash();
  CHECK(broker.kernel.guards.size() == broker.idle);
  broker.CheckNoneHeld();
}

}  // namespace
}  // namespace latchkey::broker
