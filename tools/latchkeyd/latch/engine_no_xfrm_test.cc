// Devices by which IPv4 packets leave without the SPD being asked.

#include <catch2/catch.hpp>

#include "tools/latchkeyd/latch/engine_hold_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Verdict;

constexpr int64_t kSecond = 1000;

// What a socket's own policy says of IPv4.
bool KeptFromV4(const FakeKernel::Socket& socket) {
  return socket.policy && socket.policy->kind == SocketPolicy::Kind::kBlock &&
         socket.policy->family == Family::kV4;
}

TEST_CASE("What would leave by such a device is not latched, and the setting is named") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(8, "carol", "10.9.0.3");
  broker.Keyed(9, "eve", "fd00::9");
  broker.kernel.devices["10.9.0.3"] = "wan.7";
  broker.kernel.no_xfrm.out = {"wan.7"};
  broker.Pass(kSecond);
  CHECK(broker.Connect(broker.Socket(), "10.9.0.3").reason == Reason::kNoXfrm);
  CHECK(broker.observer.log.back() ==
        "refused: no-xfrm net.ipv4.conf.wan/7.disable_xfrm must be 0");
  CHECK(broker.Connect(broker.Socket(), "10.9.0.2").verdict == Verdict::kLatched);
  CHECK(broker.Connect(broker.Socket(), "fd00::9").verdict == Verdict::kLatched);
  SECTION("where nobody can tell the device, neither") {
    broker.kernel.devices["10.9.0.2"] = "";
    CHECK(broker.Connect(broker.Socket(), "10.9.0.2").reason == Reason::kNoXfrm);
  }
  SECTION("all is every device") {
    broker.kernel.no_xfrm.out = {"all"};
    broker.Pass(kSecond);
    CHECK(broker.Connect(broker.Socket(), "10.9.0.2").reason == Reason::kNoXfrm);
    CHECK(broker.Connect(broker.Socket(), "fd00::9").verdict == Verdict::kLatched);
  }
  SECTION("without the setting it is") {
    broker.kernel.no_xfrm.out.clear();
    broker.Pass(kSecond);
    CHECK(broker.Connect(broker.Socket(), "10.9.0.3").verdict == Verdict::kLatched);
  }
}

TEST_CASE("Where no device has it, nothing is looked up, and the setting not at each request") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  REQUIRE(broker.kernel.settings_read == 1);
  for (int i = 0; i < 3; ++i) {
    CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kLatched);
  }
  CHECK(broker.kernel.settings_read == 1);
  CHECK(broker.kernel.routes_looked_up == 0);
  broker.Pass(kSecond);
  CHECK(broker.kernel.settings_read == 2);
}

TEST_CASE("What the rules bypass goes as ever") {
  Broker broker(MakePolicy({}));
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.Pass(kSecond);
  CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kBypass);
  CHECK(broker.Listen(broker.Listener()).verdict == Verdict::kBypass);
}

TEST_CASE("A listener of IPv4 is refused, and of both its IPv4 clients") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(9, "eve", "fd00::9");
  const int early = broker.Listener("0.0.0.0", 81);
  REQUIRE(broker.Listen(early).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.Pass(kSecond);
  CHECK(broker.Listen(broker.Listener()).reason == Reason::kNoXfrm);
  CHECK(broker.Listen(broker.Listener("127.0.0.1", 82)).verdict == Verdict::kLatched);
  const int both = broker.Listener("::", 443);
  REQUIRE(broker.Listen(both).verdict == Verdict::kLatched);
  CHECK(broker.Accept(broker.Child(both, "fd00::9")).verdict == Verdict::kLatched);
  for (const int listener : {early, both}) {
    const int child = broker.Child(listener);
    CHECK(broker.Accept(child).reason == Reason::kNoXfrm);
    CHECK(KeptFromV4(broker.SocketOf(child)));
  }
}

TEST_CASE("Established connections go on, and the administrator is told once") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const uint64_t id = broker.Connect(broker.Socket()).latch;
  const int warnings = broker.observer.warnings;
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.Pass(kSecond);
  broker.Pass(kSecond);
  CHECK(broker.StateOf(id) == State::kEstablished);
  CHECK(broker.observer.warnings == warnings + 1);
  CHECK(broker.observer.log.back().starts_with(
      "warning: net.ipv4.conf.eth0.disable_xfrm must be 0: "));
  broker.kernel.no_xfrm.out.clear();
  broker.Pass(kSecond);
  CHECK(broker.observer.warnings == warnings + 2);
}

TEST_CASE("A LARVAL latch, whose packets an entry alone keeps back, breaks") {
  Broker broker;
  broker.keys.negotiates = true;
  const int fd = broker.Socket();
  const uint64_t ticket = broker.Begin(fd, /*nonblocking=*/true).ticket;
  broker.Pass(broker.options.inline_ms);
  const std::optional<Answer> answer = broker.AnswerTo(ticket);
  REQUIRE(answer);
  REQUIRE(broker.StateOf(answer->latch) == State::kLarval);
  SECTION("at the next look") {
    broker.kernel.no_xfrm.out = {"eth0"};
    broker.Pass(kSecond);
    CHECK(broker.StateOf(answer->latch) == State::kBroken);
    CHECK(broker.LatchOf(answer->latch).reason == Reason::kNoXfrm);
    CHECK(KeptFromV4(broker.SocketOf(fd)));
  }
  SECTION("not where it leaves by another device") {
    broker.kernel.no_xfrm.out = {"wan"};
    broker.Pass(kSecond);
    CHECK(broker.StateOf(answer->latch) == State::kLarval);
    SECTION("until its route is another") {
      broker.kernel.devices["10.9.0.2"] = "wan";
      broker.Keyed(7, "bob", "10.9.0.2");
      broker.Negotiated("10.9.0.2");
      CHECK(broker.StateOf(answer->latch) == State::kBroken);
      CHECK(broker.LatchOf(answer->latch).reason == Reason::kNoXfrm);
    }
  }
  CHECK(broker.kernel.borrowed == 0);
}

TEST_CASE("An unconnected UDP socket of IPv4 is not held, and can be once the setting is gone") {
  HoldBroker broker(ClientPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.kernel.no_xfrm.out = {"wan"};  // whichever device: its next datagram may leave there
  broker.Pass(kSecond);
  const int fd = broker.Bound(9000);
  CHECK(broker.Peer(fd).reason == Reason::kNoXfrm);
  CHECK(KeptFromV4(broker.SocketOf(fd)));
  CHECK(broker.Hold(broker.Bound(9001, "127.0.0.1")).reason == Reason::kNoXfrm);
  broker.kernel.no_xfrm.out.clear();
  broker.Pass(kSecond);
  CHECK(broker.Peer(fd).verdict == Verdict::kLatched);
  CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
  CHECK(broker.Sends(fd, "10.9.0.2", 53, 7));
}

TEST_CASE("One of both families has to do with IPv6 alone") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const std::vector<Sa> eve = broker.Keyed(9, "eve", "fd00::9");
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.Pass(kSecond);
  const int fd = broker.Held(53, "::");
  REQUIRE(fd >= 0);
  CHECK(KeptFromV4(broker.SocketOf(fd)));
  CHECK(broker.TakesIn(fd, "fd00::9", 40'000, &eve[1]));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.Refusals("no-xfrm") == 1);  // of bob, who is not served
  CHECK(broker.Peer(fd, "10.9.0.2", 40'000).reason == Reason::kNoXfrm);
  CHECK(broker.Peer(fd, "fd00::9", 40'000).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.out.clear();
  broker.Pass(kSecond);
  CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
  CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
}

TEST_CASE("A held socket's peers break when a device gets it, and come back") {
  HoldBroker broker(ServerPolicy());
  const std::vector<Sa> bob = broker.Keyed(7, "bob", "10.9.0.2");
  const std::string address = GENERATE("0.0.0.0", "::");
  const int fd = broker.Held(53, address);
  const uint64_t held = broker.Hold(fd).latch;
  const uint64_t peer = held + 1;
  REQUIRE(broker.StateOf(peer) == State::kEstablished);
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.Pass(kSecond);
  CHECK(broker.StateOf(held) == State::kListener);
  CHECK(broker.StateOf(peer) == State::kBroken);
  CHECK(broker.LatchOf(peer).reason == Reason::kNoXfrm);
  CHECK(KeptFromV4(broker.SocketOf(fd)));
  CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  CHECK(broker.Peer(fd, "10.9.0.2", 40'000).reason == Reason::kNoXfrm);
  SECTION("it goes") {
    broker.kernel.no_xfrm.out.clear();
    broker.Pass(kSecond);
    CHECK(broker.StateOf(peer) == State::kEstablished);
    CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
    CHECK(broker.Sends(fd, "10.9.0.2", 40'000, 7));
    CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  }
  SECTION("what cannot be given back is tried again") {
    broker.kernel.no_xfrm.out.clear();
    broker.kernel.fail_after = 1;
    broker.Pass(kSecond);
    CHECK(KeptFromV4(broker.SocketOf(fd)));
    CHECK(broker.StateOf(peer) == State::kBroken);
    broker.Pass(kSecond);
    CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
    CHECK(broker.StateOf(peer) == State::kEstablished);
  }
  SECTION("under the next broker as well") {
    broker.Crash();
    CHECK(KeptFromV4(broker.SocketOf(fd)));
    CHECK_FALSE(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
    broker.kernel.no_xfrm.out.clear();
    broker.Pass(kSecond);
    CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
    CHECK(broker.TakesIn(fd, "10.9.0.2", 40'000, &bob[1]));
  }
  SECTION("and when the broker ends, IPv4 is what stays blocked") {
    broker.engine->Stop();
    CHECK(KeptFromV4(broker.SocketOf(fd)));
  }
  CHECK(broker.kernel.borrowed == 0);
}

TEST_CASE("A socket that could not be kept from IPv4 at first is, later") {
  HoldBroker broker(ServerPolicy());
  const int fd = broker.Held();
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.kernel.fail_after = 1;
  broker.Pass(kSecond);
  CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
  broker.Pass(kSecond);
  CHECK(KeptFromV4(broker.SocketOf(fd)));
}

TEST_CASE("One of IPv6 alone is left as it is") {
  HoldBroker broker(ServerPolicy());
  const int fd = broker.Bound(53, "fd00::1");
  broker.SocketOf(fd).facts.v6_only = true;
  REQUIRE(broker.Hold(fd).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.out = {"all"};
  broker.Pass(kSecond);
  CHECK_FALSE(KeptFromV4(broker.SocketOf(fd)));
}

// Connections from some are protected, those of others not: the SPD keeps clear ones out.
std::shared_ptr<const policy::Policy> MixedPolicy() {
  policy::Rule rule = ProtectRule();
  rule.remote = {*Prefix::Parse("10.9.0.0/24")};
  return MakePolicy({rule});
}

TEST_CASE("Who was kept out by the SPD alone is refused where that is not asked") {
  Broker broker(MixedPolicy());
  broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  CHECK(broker.Accept(broker.Child(listener)).verdict == Verdict::kLatched);
  const int waits = broker.Child(listener, "10.9.0.2", 40'001);
  const int also = broker.Child(listener, "10.9.0.2", 40'002);
  broker.kernel.no_xfrm.in_v4 = {"vti0"};
  broker.Pass(kSecond);
  CHECK(broker.observer.log.back().starts_with(
      "warning: net.ipv4.conf.vti0.disable_policy must be 0: "));
  CHECK(broker.Accept(waits).reason == Reason::kNoXfrm);
  CHECK(broker.observer.log.back() ==
        "refused: no-xfrm net.ipv4.conf.vti0.disable_policy must be 0");
  // Those of others go as ever.
  CHECK(broker.Accept(broker.Child(listener, "192.0.2.7")).verdict == Verdict::kBypass);
  SECTION("also who came before it was again, and nobody later") {
    broker.kernel.no_xfrm.in_v4.clear();
    SECTION("at once") {}
    SECTION("as soon as it is known who waits") {
      broker.kernel.no_list = true;
      broker.Pass(kSecond);
      CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 40'009)).reason == Reason::kNoXfrm);
      broker.kernel.no_list = false;
    }
    broker.Pass(kSecond);
    CHECK(broker.Accept(also).reason == Reason::kNoXfrm);
    CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 40'003)).verdict == Verdict::kLatched);
  }
  SECTION("another family's devices do not matter") {
    broker.kernel.no_xfrm.in_v4.clear();
    broker.kernel.no_xfrm.in_v6 = {"eth0"};
    broker.Pass(kSecond);
    CHECK(broker.Accept(broker.Child(listener, "10.9.0.2", 40'003)).verdict == Verdict::kLatched);
  }
}

TEST_CASE("Both families' devices, at once: who came by either is refused") {
  policy::Rule rule = ProtectRule();
  rule.remote = {*Prefix::Parse("10.9.0.0/24"), *Prefix::Parse("fd00::/64")};
  Broker broker(MakePolicy({rule}));
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(9, "eve", "fd00::9");
  const int listener = broker.Listener("::");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.in_v4 = broker.kernel.no_xfrm.in_v6 = {"all"};
  broker.Pass(kSecond);
  const int v4 = broker.Child(listener);
  const int v6 = broker.Child(listener, "fd00::9");
  broker.kernel.no_xfrm = {};
  broker.Pass(kSecond);
  CHECK(broker.Accept(v4).reason == Reason::kNoXfrm);
  CHECK(broker.Accept(v6).reason == Reason::kNoXfrm);
}

TEST_CASE("What the system alone asks leans on the SPD") {
  Broker broker(MakePolicy({}));
  broker.Keyed(7, "bob", "10.9.0.2");
  SpdEntry entry;
  entry.bare = false;
  entry.protocol = SaProtocol::kEsp;
  entry.mode = Mode::kTransport;
  entry.reqid = 7;
  for (const uint8_t dir : {0, 1}) {
    entry.dir = dir;
    broker.kernel.spd.push_back(entry);
  }
  broker.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kBypass);
  CHECK(broker.Accept(broker.Child(listener)).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.in_v4 = {"vti0"};
  broker.Pass(kSecond);
  CHECK(broker.Accept(broker.Child(listener)).reason == Reason::kNoXfrm);
}

TEST_CASE("A listener that asks for SAs itself goes on") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  const int listener = broker.Listener();
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.in_v4 = {"vti0"};
  broker.Pass(kSecond);
  CHECK(broker.Accept(broker.Child(listener)).verdict == Verdict::kLatched);
  CHECK(broker.Connect(broker.Socket()).verdict == Verdict::kLatched);
}

TEST_CASE("Of both families it asks for one itself, and leans on the SPD for the other") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.Keyed(9, "eve", "fd00::9");
  const int listener = broker.Listener("::");
  REQUIRE(broker.Listen(listener).verdict == Verdict::kLatched);
  broker.kernel.no_xfrm.in_v4 = broker.kernel.no_xfrm.in_v6 = {"all"};
  broker.Pass(kSecond);
  const bool v4 = broker.Accept(broker.Child(listener)).verdict == Verdict::kLatched;
  const bool v6 = broker.Accept(broker.Child(listener, "fd00::9")).verdict == Verdict::kLatched;
  CHECK(v4 != v6);
  CHECK((broker.SocketOf(listener).policy->family == Family::kV4) == v4);
}

TEST_CASE("Settings that cannot be read: no start; later what was known stands") {
  Broker broker;
  broker.Keyed(7, "bob", "10.9.0.2");
  broker.kernel.no_xfrm.out = {"eth0"};
  broker.Pass(kSecond);
  broker.kernel.no_settings = true;
  const int warnings = broker.observer.warnings;
  broker.Pass(kSecond);
  broker.Pass(kSecond);
  CHECK(broker.observer.warnings == warnings + 1);
  CHECK(broker.Connect(broker.Socket()).reason == Reason::kNoXfrm);
  broker.Crash();
  CHECK_FALSE(broker.started);
}

}  // namespace
}  // namespace latchkey::broker
