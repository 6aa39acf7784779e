// Several tunnels at once whose SAs name nothing in their selectors, as charon makes them: what
// their peers agreed on counts, as far as a policy by exact reqid holds them to it.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

policy::Rule TunnelRule() {
  policy::Rule rule = ProtectRule({"bob", "carol"});
  rule.protection.mode = Mode::kTunnel;
  return rule;
}

// Both peers' tunnels are up: bob's under reqid 7, carol's under 8, from one address.
struct Tunnels : Broker {
  Tunnels() : Broker(MakePolicy({TunnelRule()})) {
    Tunnel(7, "bob", "192.168.2.0/24");
    Tunnel(8, "carol", "192.168.3.0/24");
  }

  std::vector<Sa> Tunnel(uint32_t reqid, const std::string& peer, const std::string& inside) {
    keys.NameTunnel(reqid, peer, inside);
    return Bare(reqid, inside);
  }
  // SAs as the kernel has them, whoever they are of.
  std::vector<Sa> Bare(uint32_t reqid, const std::string& inside) {
    std::vector<Sa> made = kernel.AddPair(reqid, "10.9.0.254");
    kernel.Tunnel(reqid, inside, /*bare=*/true);
    for (Sa& sa : made) {
      sa.protection.mode = Mode::kTunnel;
      Hear(sa);
    }
    return made;
  }
  int Inside(int listener, const std::string& from, uint16_t port = 40'000) {
    const int child = Child(listener, from, port);
    SocketOf(child).facts.local = At("192.168.1.1", 80);
    return child;
  }
  std::string PeerOf(const Answer& answer) const {
    return answer.verdict == Verdict::kLatched ? LatchOf(answer.latch).identity.peer_id
                                               : wire::ReasonWord(answer.reason);
  }
  // What lets packets from `remote` in: its reqid, 0 for none.
  uint32_t LetsIn(const std::string& remote) const {
    const Guard* first = nullptr;
    for (const Guard& guard : kernel.guards) {
      if (guard.out || !guard.selector.source.Contains(*Address::Parse(remote))) continue;
      if (first == nullptr || guard.priority < first->priority) first = &guard;
    }
    REQUIRE(first != nullptr);
    if (!Requires(first->action)) return 0;
    CHECK(first->reqid != 0);
    return first->reqid;
  }
};

TEST_CASE("who connects gets the tunnel that is for the address") {
  Tunnels broker;
  CHECK(broker.PeerOf(broker.Connect(broker.Socket(), "192.168.2.9")) == "bob");
  CHECK(broker.PeerOf(broker.Connect(broker.Socket(), "192.168.3.9")) == "carol");
  CHECK(broker.PeerOf(broker.Connect(broker.Socket(), "192.168.4.9")) == "no-sa");
}

TEST_CASE("a listener serves each peer by its own tunnel, and asks for its reqid") {
  Tunnels broker;
  const int listener = broker.Listener("192.168.1.1");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  // No policy of the socket's own: it could not tell one tunnel from the other.
  CHECK(broker.SocketOf(listener).policy->kind == SocketPolicy::Kind::kClear);
  CHECK(broker.LetsIn("192.168.2.9") == 7);
  CHECK(broker.LetsIn("192.168.3.9") == 8);
  CHECK(broker.LetsIn("192.168.4.9") == 0);
  CHECK(broker.LetsIn("10.9.0.2") == 0);
  CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.2.9"))) == "bob");
  CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.3.9"))) == "carol");
}

TEST_CASE("tunnels that come and go while it listens") {
  Tunnels broker;
  const int listener = broker.Listener("0.0.0.0");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const Answer bob = broker.Accept(broker.Inside(listener, "192.168.2.9"));
  REQUIRE(broker.PeerOf(bob) == "bob");
  SECTION("the other's rekey is nothing to the first") {
    // What it is for is not known before its name is, whole.
    const Identified unsaid = GENERATE(Identified::Pending(), Identified::Pending("carol", "me"));
    broker.keys.by_spi[broker.kernel.next_spi] = unsaid;
    broker.keys.by_spi[broker.kernel.next_spi + 1] = unsaid;
    broker.Bare(8, "192.168.3.0/24");
    CHECK(broker.StateOf(bob.latch) == State::kEstablished);
    broker.keys.by_spi.clear();
    broker.KeysChanged();
    CHECK(broker.StateOf(bob.latch) == State::kEstablished);
    CHECK(broker.LetsIn("192.168.2.9") == 7);
    CHECK(broker.LetsIn("192.168.3.9") == 8);
  }
  SECTION("a reqid that another takes over lets nobody in as the first") {
    broker.kernel.RemoveSas(7);
    broker.engine->OnEvents({{KernelEvent::Kind::kOverrun, {}}});
    CHECK(broker.LetsIn("192.168.2.9") == 0);
    const int queued = broker.Inside(listener, "192.168.2.9", 40'001);
    broker.Tunnel(7, "carol", "192.168.4.0/24");
    // What bob's address has sent may have come by carol's SA, before the entry was gone.
    CHECK(broker.PeerOf(broker.Accept(queued)) == "ambiguous-peer");
    CHECK(broker.StateOf(bob.latch) == State::kBroken);  // it is pinned to that reqid
  }
  SECTION("two identities under one reqid serve neither") {
    const int queued = broker.Inside(listener, "192.168.2.9", 40'001);
    broker.keys.by_spi[broker.kernel.next_spi] = FakeKeyManager::Tunnel("carol", "192.168.4.0/24");
    broker.keys.by_spi[broker.kernel.next_spi + 1] =
        FakeKeyManager::Tunnel("carol", "192.168.4.0/24");
    broker.Bare(7, "192.168.4.0/24");
    CHECK(broker.LetsIn("192.168.2.9") == 0);
    CHECK(broker.PeerOf(broker.Accept(queued)) == "ambiguous-peer");
    CHECK(broker.StateOf(bob.latch) == State::kBroken);
    CHECK(broker.PeerOf(broker.Connect(broker.Socket(), "192.168.2.9")) == "ambiguous-peer");
  }
  SECTION("what two are for serves neither") {
    broker.Tunnel(9, "mallory", "192.168.2.9");
    CHECK(broker.StateOf(bob.latch) == State::kBroken);
    CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.2.9", 40'001))) ==
          "ambiguous-peer");
    CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.3.9", 40'001))) == "carol");
  }
  SECTION("one of whose traffic nothing is known may carry everything") {
    broker.keys.Name(9, "mallory");
    broker.Bare(9, "192.168.5.0/24");
    CHECK(broker.StateOf(bob.latch) == State::kBroken);
    CHECK(broker.LetsIn("192.168.3.9") == 0);
  }
}

TEST_CASE("while the key manager is away, what it said of the traffic holds") {
  Tunnels broker;
  const int listener = broker.Listener("192.168.1.1");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const Answer bob = broker.Accept(broker.Inside(listener, "192.168.2.9"));
  broker.keys.by_reqid.clear();
  broker.keys.unknown = Identified::Nobody(Reason::kKmLost);
  broker.KeysChanged();
  CHECK(broker.StateOf(bob.latch) == State::kEstablished);
  broker.keys.NameTunnel(7, "bob", "192.168.2.0/24");
  broker.keys.NameTunnel(8, "carol", "192.168.3.0/24");
  broker.KeysChanged();
  CHECK(broker.StateOf(bob.latch) == State::kEstablished);
  CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.3.9"))) == "carol");
}

TEST_CASE("a listener in transport mode has nothing to do with tunnels") {
  Tunnels broker;
  broker.client.policy = MakePolicy({ProtectRule({"dave"})});
  broker.Keyed(11, "dave", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  CHECK(broker.PeerOf(broker.Accept(broker.Child(listener, "10.9.0.2"))) == "dave");
}

TEST_CASE("where no entry by reqid stood, a tunnel may have carried everything") {
  Tunnels broker;
  const int listener = broker.Listener("192.168.1.1");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  SECTION("the system's own listener") {
    SpdEntry entry;
    entry.dir = 0;
    entry.bare = false;
    entry.protocol = SaProtocol::kEsp;
    entry.mode = Mode::kTunnel;
    broker.kernel.spd = {entry};
    entry.dir = 1;
    broker.kernel.spd.push_back(entry);
    broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
    broker.client.policy = MakePolicy({});
    const int child =
        broker.kernel.AddSocket(At("192.168.1.1", 81), At("192.168.2.9", 40'000), false, 1);
    CHECK(broker.PeerOf(broker.Accept(child)) == "ambiguous-peer");
  }
  SECTION("entries that were flushed, and put back") {
    const int queued = broker.Inside(listener, "192.168.2.9");
    broker.kernel.guards.clear();
    broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
    CHECK(broker.LetsIn("192.168.2.9") == 7);
    CHECK(broker.PeerOf(broker.Accept(queued)) == "suspect-gap");
    CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.2.9", 40'001))) == "bob");
  }
}

TEST_CASE("a broker that comes back takes the entries by reqid over") {
  Tunnels broker;
  const int listener = broker.Listener("192.168.1.1");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  const std::vector<Guard> before = broker.kernel.guards;
  broker.Crash();
  REQUIRE(broker.started);
  CHECK(broker.kernel.guards.size() == before.size());
  CHECK(broker.LetsIn("192.168.2.9") == 7);
  CHECK(broker.PeerOf(broker.Accept(broker.Inside(listener, "192.168.3.9"))) == "carol");
}

}  // namespace
}  // namespace latchkey::broker
