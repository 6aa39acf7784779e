// Latches in tunnel mode: the ends of the tunnel, what is inside, and fragments.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

const TunnelEnds kEnds{Address::Parse("10.9.0.1").value(), Address::Parse("10.9.0.2").value()};

policy::Rule TunnelRule(std::optional<Mode> mode = Mode::kTunnel) {
  policy::Rule rule = ProtectRule({"bob"});
  rule.protection.mode = mode;
  return rule;
}

// A broker whose SAs of reqid 7 are a tunnel to bob at 10.9.0.2, for 192.168.1.1 and `inside`.
struct Tunnelled : Broker {
  explicit Tunnelled(policy::Rule rule = TunnelRule(), const std::string& inside = "192.168.2.0/24")
      : Broker(MakePolicy({std::move(rule)})) {
    Tunnel(7, "bob", inside);
  }

  void Tunnel(uint32_t reqid, const std::string& peer, const std::string& inside,
              const std::string& end = "10.9.0.2") {
    keys.Name(reqid, peer);
    kernel.AddPair(reqid, end);
    kernel.Tunnel(reqid, inside);
    engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  }

  const Latch& LatchOf(const Answer& answer) const {
    return engine->database().Find(answer.latch)->latch;
  }
};

TEST_CASE("a tunnel's latch pins its ends, and says where it runs") {
  Tunnelled broker;
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd, "192.168.2.9");
  REQUIRE(answer.verdict == Verdict::kLatched);
  const SocketPolicy& policy = *broker.kernel.sockets.at(fd).policy;
  CHECK(policy.mode == Mode::kTunnel);
  CHECK(policy.ends == kEnds);
  CHECK(policy.reqid == 7);
  const Latch& latch = broker.LatchOf(answer);
  CHECK(latch.protection.mode == Mode::kTunnel);
  CHECK(latch.peering.local.address == kEnds.local);
  CHECK(latch.peering.remote.address == kEnds.remote);
  CHECK(latch.flow.remote.address == Address::Parse("192.168.2.9").value());
  // What the kernel sends without asking the socket goes the same way.
  CHECK(std::ranges::any_of(broker.kernel.guards, [](const Guard& guard) {
    return guard.out && guard.mode == Mode::kTunnel && guard.ends == kEnds &&
           guard.selector.destination == Prefix::Parse("192.168.2.9").value();
  }));
  // What the selector does not cover is not the tunnel's.
  CHECK(broker.Connect(broker.Socket(), "192.168.3.1").reason == Reason::kNoSa);
  CHECK(broker.Connect(broker.Socket(), "10.9.0.2").reason == Reason::kNoSa);
}

TEST_CASE("the mode a rule names is held to, and without one either will do") {
  Tunnelled transport(TunnelRule(Mode::kTransport));
  CHECK(transport.Connect(transport.Socket(), "192.168.2.9").reason == Reason::kWeakProtection);
  Tunnelled either(TunnelRule(std::nullopt));
  CHECK(either.Connect(either.Socket(), "192.168.2.9").verdict == Verdict::kLatched);
  Broker plain(MakePolicy({TunnelRule()}));
  plain.Keyed(7, "bob", "10.9.0.2");
  CHECK(plain.Connect(plain.Socket()).reason == Reason::kWeakProtection);
}

TEST_CASE("fragments in clear are banned as long as a tunnel's latch or its last ACKs need it") {
  Tunnelled broker;
  CHECK(broker.kernel.bans.empty());
  const int fd = broker.Socket();
  const Answer answer = broker.Connect(fd, "192.168.2.9");
  REQUIRE(answer.verdict == Verdict::kLatched);
  const std::vector<FragmentBan> wanted = {
      {Prefix::Parse("192.168.1.1").value(), Prefix::Parse("192.168.2.9").value(), 7}};
  CHECK(broker.kernel.bans == wanted);
  // Taken away by somebody, put back.
  broker.kernel.bans.clear();
  broker.kernel.bans_stand = false;
  broker.kernel.now += 2'000;
  broker.engine->Tick();
  CHECK(broker.kernel.bans == wanted);
  broker.kernel.sockets.erase(fd);
  broker.kernel.now += 2'000;
  broker.engine->Tick(/*reap_now=*/true);
  CHECK(broker.kernel.bans == wanted);
  broker.kernel.now += 70'000;
  broker.engine->Tick();
  CHECK(broker.kernel.bans.empty());
}

TEST_CASE("where fragments cannot be banned there is no tunnel latch") {
  Tunnelled broker;
  broker.kernel.bans_possible = false;
  const int fd = broker.Socket();
  CHECK(broker.Connect(fd, "192.168.2.9").reason == Reason::kUnsupported);
  CHECK(broker.kernel.sockets.at(fd).policy->kind == SocketPolicy::Kind::kBlock);
  CHECK(broker.engine->database().entries().empty());
  // Transport mode needs none.
  Broker plain;
  plain.kernel.bans_possible = false;
  plain.Keyed(7, "bob", "10.9.0.2");
  CHECK(plain.Connect(plain.Socket()).verdict == Verdict::kLatched);
}

TEST_CASE("a tunnel's latch breaks like any other") {
  Tunnelled broker;
  const Answer first = broker.Connect(broker.Socket(), "192.168.2.9");
  REQUIRE(first.verdict == Verdict::kLatched);
  SECTION("another peer's tunnel for the same inside") {
    broker.Tunnel(9, "mallory", "192.168.2.0/24", "10.9.0.3");
    CHECK(broker.StateOf(first.latch) == State::kBroken);
    CHECK(broker.Connect(broker.Socket(), "192.168.2.9").reason == Reason::kAmbiguousPeer);
  }
  SECTION("the same peer, elsewhere: the latch goes with it") {
    broker.kernel.RemoveSas(7);
    broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
    broker.Tunnel(7, "bob", "192.168.2.0/24", "10.9.0.4");
    broker.kernel.now += 16'000;
    broker.engine->Tick();
    CHECK(broker.StateOf(first.latch) == State::kEstablished);
    const SocketPolicy& policy = *broker.kernel.sockets.begin()->second.policy;
    CHECK(policy.ends.remote == Address::Parse("10.9.0.4"));
    CHECK(broker.LatchOf(first).peering.remote.address == Address::Parse("10.9.0.4"));
  }
  SECTION("a tunnel for another inside is nothing to it") {
    broker.Tunnel(9, "mallory", "192.168.3.0/24", "10.9.0.3");
    CHECK(broker.StateOf(first.latch) == State::kEstablished);
  }
}

TEST_CASE("a listener takes tunnels alone, answers into them, and knows the peer at accept") {
  Tunnelled broker;
  const int listener = broker.Listener("192.168.1.1");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  CHECK(broker.SocketOf(listener).policy->kind == SocketPolicy::Kind::kClear);
  const auto let_in = std::ranges::find_if(broker.kernel.guards, [](const Guard& guard) {
    return !guard.out && Requires(guard.action);
  });
  REQUIRE(let_in != broker.kernel.guards.end());
  CHECK(let_in->mode == Mode::kTunnel);
  CHECK(let_in->ends == kEnds);
  CHECK(let_in->reqid == 7);
  CHECK(let_in->selector.source == Prefix::Parse("192.168.2.0/24").value());
  CHECK(std::ranges::any_of(broker.kernel.guards, [&let_in](const Guard& guard) {
    return !guard.out && guard.action == Guard::Action::kBlock &&
           guard.priority > let_in->priority && guard.selector.source.length == 0;
  }));
  const auto answers = std::ranges::find_if(
      broker.kernel.guards, [](const Guard& guard) { return guard.out && Requires(guard.action); });
  REQUIRE(answers != broker.kernel.guards.end());
  CHECK(answers->mode == Mode::kTunnel);
  CHECK(answers->ends == kEnds);
  CHECK(answers->selector.source == Prefix::Parse("192.168.1.1").value());
  CHECK(answers->selector.destination == Prefix::Parse("192.168.2.0/24").value());
  CHECK(broker.kernel.bans.size() == 1);
  const int child = broker.Child(listener, "192.168.2.5");
  broker.kernel.sockets.at(child).facts.local = At("192.168.1.1", 80);
  const Answer answer = broker.Accept(child);
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.kernel.sockets.at(child).policy->ends == kEnds);
  CHECK(broker.LatchOf(answer).peering.remote.address == kEnds.remote);
  const int stranger = broker.Child(listener, "192.168.3.5", 40'001);
  broker.kernel.sockets.at(stranger).facts.local = At("192.168.1.1", 80);
  CHECK(broker.Accept(stranger).reason == Reason::kNoSa);
}

TEST_CASE("a listener's rules divide what a tunnel reaches") {
  policy::Rule none = ProtectRule();
  none.action = policy::Action::kDiscard;
  none.remote = {Prefix::Parse("192.168.2.0/25").value()};
  Broker broker(MakePolicy({none, TunnelRule()}));
  broker.keys.Name(7, "bob");
  broker.kernel.AddPair(7, "10.9.0.2");
  broker.kernel.Tunnel(7, "192.168.2.0/24");
  broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
  REQUIRE(broker.Listen(broker.Listener()).verdict == Verdict::kLatched);
  std::vector<Prefix> reached;
  for (const Guard& guard : broker.kernel.guards) {
    if (guard.out && Requires(guard.action)) reached.push_back(guard.selector.destination);
  }
  CHECK(reached == std::vector{Prefix::Parse("192.168.2.128/25").value()});
}

TEST_CASE("what the SPD sends through a tunnel is latched to it without a policy") {
  Tunnelled broker;
  broker.client.policy = MakePolicy({});
  SpdEntry entry;
  entry.dir = 1;
  entry.index = 9;
  entry.bare = false;
  entry.protocol = SaProtocol::kEsp;
  entry.mode = Mode::kTunnel;
  entry.reqid = 7;
  entry.tunnel_source = kEnds.local;
  entry.tunnel_destination = kEnds.remote;
  broker.kernel.spd = {entry};
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  const Answer answer = broker.Connect(broker.Socket(), "192.168.2.9");
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(broker.LatchOf(answer).implicit);
  CHECK(broker.LatchOf(answer).protection.mode == Mode::kTunnel);
}

TEST_CASE("a broker that comes back takes a tunnel's latch over, ban and all") {
  Tunnelled broker;
  const Answer answer = broker.Connect(broker.Socket(), "192.168.2.9");
  REQUIRE(answer.verdict == Verdict::kLatched);
  const Entry entry = *broker.engine->database().Find(answer.latch);
  std::vector<Guard> journal;
  for (const auto& [guard, count] : broker.observer.journal) journal.push_back(guard);
  const std::vector<FragmentBan> bans = broker.kernel.bans;
  broker.Restart(journal, {entry});
  REQUIRE(broker.started);
  CHECK(broker.StateOf(answer.latch) == State::kEstablished);
  CHECK(broker.kernel.bans == bans);
  // One that cannot be kept from clear fragments any more is broken.
  broker.kernel.bans_possible = false;
  broker.Restart(journal, {entry});
  REQUIRE(broker.started);
  CHECK(broker.StateOf(answer.latch) == State::kBroken);
  broker.kernel.bans_possible = true;
  // Without latches what was left is cleared away.
  broker.Restart(journal, {});
  CHECK(broker.kernel.bans.empty());
}

}  // namespace
}  // namespace latchkey::broker
