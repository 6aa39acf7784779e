// What vici_test.cc does not see from outside.
#include "tools/latchkeyd/keymgr/vici/mirror.h"

#include <catch2/catch.hpp>

namespace latchkey::broker::vici {
namespace {

IkeSa Ike(uint32_t id, uint32_t spi, const std::string& peer = "alice") {
  IkeSa ike;
  ike.name = "c";
  ike.id = id;
  ike.state = "ESTABLISHED";
  ike.spis = peer + std::to_string(id);
  ike.local.address = *Address::Parse("10.9.0.2");
  ike.remote.address = *Address::Parse("10.9.0.1");
  ike.local_id = "me";
  ike.remote_id = peer;
  ChildSa child;
  child.id = id;
  child.reqid = 70000;
  child.protocol = SaProtocol::kEsp;
  child.spi_in = spi;
  child.spi_out = spi + 1;
  ike.children = {child};
  return ike;
}

Sa Inbound(uint32_t spi) {
  Sa sa;
  sa.key = {*Address::Parse("10.9.0.2"), spi, SaProtocol::kEsp};
  sa.source = *Address::Parse("10.9.0.1");
  sa.reqid = 70000;
  return sa;
}

ConnConfig Conn(const std::string& auth = "pubkey") {
  ConnConfig conn;
  conn.name = "c";
  conn.remote = {{auth, "alice"}};
  return conn;
}

struct Fixture {
  Mirror mirror;

  Fixture() {
    mirror.Reconnected();
    mirror.SetConns({Conn()});
  }
  bool List(const std::vector<IkeSa>& ikes) {
    mirror.BeginList();
    for (const IkeSa& ike : ikes) mirror.Listed(ike);
    return mirror.EndList();
  }
  std::string Who(uint32_t spi) const {
    const std::optional<Identified> who = mirror.Look(Inbound(spi), true);
    if (!who) return "none";
    if (who->pending()) return "pending";
    return who->known() ? who->verified.identity.peer_id : wire::ReasonWord(who->why);
  }
};

TEST_CASE_METHOD(Fixture, "A list is all there is, and says whether it is new") {
  CHECK(List({Ike(1, 0x100), Ike(2, 0x200)}));
  CHECK_FALSE(List({Ike(1, 0x100), Ike(2, 0x200)}));
  CHECK(mirror.size() == 2);
  CHECK(List({Ike(2, 0x200)}));
  CHECK(Who(0x100) == "none");
  CHECK(Who(0x200) == "alice");
  CHECK(List({}));
  CHECK(mirror.size() == 0);
  CHECK_FALSE(mirror.PeerOf(2));
}

TEST_CASE_METHOD(Fixture, "A tunnel's traffic, in the direction of the SA") {
  IkeSa ike = Ike(1, 0x100);
  ike.children[0].mode = Mode::kTunnel;
  ike.children[0].local_ts = {"192.168.1.1/32"};
  ike.children[0].remote_ts = {"192.168.2.0/24"};
  List({ike});
  const Sa in = Inbound(0x100);
  Sa out = Inbound(0x101);
  std::swap(out.source, out.key.destination);
  const std::vector<Selector> coming = mirror.Look(in, true)->verified.traffic;
  const std::vector<Selector> going = mirror.Look(out, false)->verified.traffic;
  REQUIRE(coming.size() == 1);
  REQUIRE(going.size() == 1);
  CHECK(coming[0].source == Prefix::Parse("192.168.2.0/24").value());
  CHECK(coming[0].destination == Prefix::Parse("192.168.1.1").value());
  CHECK(going[0] == Mirrored(coming[0]));
  // One SA of two children that are for something else is for nothing that is known.
  IkeSa twin = ike;
  twin.id = twin.children[0].id = 2;
  twin.spis = "alice2";
  twin.children[0].remote_ts = {"192.168.3.0/24"};
  List({ike, twin});
  mirror.SetConns({Conn()});
  CHECK(mirror.Look(in, true)->known());
  CHECK(mirror.Look(in, true)->verified.traffic.empty());
}

TEST_CASE_METHOD(Fixture, "What comes up while a list is under way is not swept away by it") {
  List({});
  mirror.BeginList();
  mirror.Heard(Ike(1, 0x100));
  CHECK(Who(0x100) == "pending");  // until the configurations are there
  CHECK(mirror.Look(Inbound(0x100), true)->OthersThan({"mallory", "me", "pubkey"}));
  CHECK_FALSE(mirror.Look(Inbound(0x100), true)->OthersThan(Identity{"alice", "me", ""}));
  CHECK(mirror.unsettled());
  CHECK(mirror.EndList());
  CHECK(mirror.SetConns({Conn()}));
  CHECK_FALSE(mirror.unsettled());
  CHECK(Who(0x100) == "alice");
}

TEST_CASE_METHOD(Fixture, "A list is of a time before the events that were read before it") {
  List({});
  const std::string state = GENERATE("CREATED", "CONNECTING", "DESTROYING");
  mirror.BeginList();
  mirror.Heard(Ike(1, 0x100));
  mirror.SetConns({Conn()});
  CHECK(Who(0x100) == "alice");
  IkeSa before = Ike(1, 0x100, "");
  before.state = state;
  before.children.clear();
  mirror.Listed(before);
  mirror.EndList();
  CHECK(Who(0x100) == "alice");
}

TEST_CASE_METHOD(Fixture, "A peer that begins has no configuration yet, and proves itself later") {
  List({});
  IkeSa begins = Ike(1, 0x100, "");
  begins.name = "(unnamed)";
  begins.state = "CONNECTING";
  begins.children.clear();
  List({begins});
  CHECK_FALSE(mirror.unsettled());
  mirror.SetConns({Conn()});
  mirror.Heard(Ike(1, 0x100));
  CHECK(mirror.unsettled());
  mirror.SetConns({Conn()});
  CHECK(mirror.Look(Inbound(0x100), true)->verified.identity == Identity{"alice", "me", "pubkey"});
}

TEST_CASE_METHOD(Fixture, "A configuration that is gone leaves the proof open, not the peer") {
  List({});
  mirror.Heard(Ike(1, 0x100));
  mirror.SetConns({});
  CHECK(mirror.Look(Inbound(0x100), true)->verified.identity == Identity{"alice", "me", ""});
}

TEST_CASE_METHOD(Fixture, "Another charon: same numbers, other SAs") {
  List({Ike(1, 0x100)});
  mirror.Reconnected();
  CHECK(Who(0x100) == "alice");
  CHECK_FALSE(mirror.PeerOf(1));  // the new charon's number one
  mirror.SetConns({Conn()});
  List({Ike(1, 0x300, "bob")});
  CHECK(Who(0x100) == "km-lost");
  CHECK(Who(0x300) == "bob");
  CHECK(mirror.PeerOf(1)->peer_id == "bob");
  // It comes back: as when charon was asked too early.
  mirror.Heard(Ike(7, 0x100));
  mirror.SetConns({Conn()});
  CHECK(Who(0x100) == "alice");
}

TEST_CASE_METHOD(Fixture, "The past of a reqid ends with charon") {
  List({Ike(1, 0x100), Ike(2, 0x200, "bob")});
  CHECK_FALSE(mirror.Look(Inbound(0x100), true)->verified.static_reqid);
  List({Ike(1, 0x100)});
  CHECK_FALSE(mirror.Look(Inbound(0x100), true)->verified.static_reqid);
  mirror.Reconnected();
  List({Ike(1, 0x100)});
  CHECK(mirror.Look(Inbound(0x100), true)->verified.static_reqid);
}

TEST_CASE_METHOD(Fixture, "The one peer of a configuration") {
  CHECK_FALSE(mirror.SolePeerOf("c"));
  List({Ike(1, 0x100), Ike(2, 0x200)});
  CHECK(mirror.SolePeerOf("c") == Address::Parse("10.9.0.1"));
  IkeSa far = Ike(3, 0x300);
  far.remote.address = *Address::Parse("10.9.0.3");
  mirror.Heard(far);
  CHECK_FALSE(mirror.SolePeerOf("c"));
}

TEST_CASE_METHOD(
    Fixture, "How a peer proves who it is goes by the configuration that it is under in the end") {
  mirror.BeginList();
  mirror.EndList();
  IkeSa ike = Ike(1, 0x100);
  ike.name = "(unnamed)";
  ike.state = "CONNECTING";
  mirror.Heard(ike);
  mirror.SetConns({Conn()});
  ike.name = "c";
  ike.state = "ESTABLISHED";
  mirror.Heard(ike);
  mirror.SetConns({Conn()});
  const std::optional<Identified> who = mirror.Look(Inbound(0x100), true);
  REQUIRE(who);
  CHECK(who->verified.identity.auth == "pubkey");
}

}  // namespace
}  // namespace latchkey::broker::vici
