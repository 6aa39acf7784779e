// Who is behind an SA: lists, events, and a charon that comes and goes.
#include "tools/latchkeyd/keymgr/vici/vici.h"

#include <catch2/catch.hpp>

#include "tools/latchkeyd/keymgr/vici/vici_fixture.h"

namespace latchkey::broker::vici {
namespace {

TEST_CASE_METHOD(ViciFixture,
                 "The first connection: pending, then known with all there is to say") {
  charon.sas = {FakeIke{}};
  charon.sas[0].nat_remote = true;
  charon.Start();
  Make();
  CHECK(Who(in) == "pending");
  CHECK_FALSE(keys->connected());
  Spin();
  CHECK(keys->connected());
  CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
  const Identified who = keys->Identify(in, true);
  REQUIRE(who.known());
  CHECK(who.verified.identity == Identity{"alice.example", "me.example", "pubkey"});
  CHECK(who.verified.static_reqid);
  CHECK(who.verified.peering.local.ToString() == "10.9.0.2:500");
  CHECK(who.verified.peering.remote.ToString() == "10.9.0.1:500");
  CHECK(who.verified.peering.nat_remote);
  CHECK_FALSE(who.verified.peering.nat_local);
  CHECK(keys->Identify(out, false) == who);
}

TEST_CASE_METHOD(ViciFixture, "SPI, reqid, protocol, direction and both addresses must match") {
  charon.sas = {FakeIke{}};
  Begin();
  const auto nobody = [this](Sa sa, bool inbound) {
    CHECK(Who(sa, inbound) == "pending");
    Spin();
    CHECK(Who(sa, inbound) == "peer-unknown");
  };
  nobody(MakeSa("10.9.0.1", "10.9.0.2", 0x101), true);
  nobody(MakeSa("10.9.0.1", "10.9.0.2", 0x100, 70001), true);
  nobody(MakeSa("10.9.0.3", "10.9.0.2", 0x100), true);
  nobody(MakeSa("10.9.0.1", "10.9.0.4", 0x100), true);
  Sa ah = in;
  ah.key.protocol = SaProtocol::kAh;
  nobody(ah, true);
  CHECK(Who(in, false) == "pending");
  CHECK(Who(out, false) == "alice.example");
  Sa larval = foreign;
  larval.larval = true;
  CHECK(Who(larval) == "peer-unknown");
}

TEST_CASE_METHOD(ViciFixture, "An unknown SA is asked for once, and by one list with others") {
  Begin();
  const size_t before = charon.Asked("list-sas");
  const Sa other = MakeSa("10.9.0.1", "10.9.0.2", 0x667);
  CHECK(Who(foreign) == "pending");
  CHECK(Who(other) == "pending");
  CHECK(Who(foreign) == "pending");
  Spin();
  // The second was asked about while the list for the first was under way.
  CHECK(charon.Asked("list-sas") == before + 2);
  CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
  CHECK(Who(foreign) == "peer-unknown");
  CHECK(Who(other) == "peer-unknown");
  Spin();
  CHECK(charon.Asked("list-sas") == before + 2);
  // Events bring what is new by themselves: those that were nobody's are not asked for again.
  charon.sas = {FakeIke{}};
  charon.Event("ike-updown", UpDownMessage(charon.sas[0], true, false));
  charon.Event("child-updown", UpDownMessage(charon.sas[0], true, true));
  Spin();
  CHECK(Who(foreign) == "peer-unknown");
  CHECK(Who(in) == "alice.example");
}

TEST_CASE_METHOD(ViciFixture, "Pending while charon works, known by the list or by the event") {
  Begin();
  charon.holds_lists = true;
  CHECK(Who(in) == "pending");
  Spin();
  CHECK(Who(in) == "pending");
  Take();
  charon.sas = {FakeIke{}};
  SECTION("the list") { charon.ReleaseLists(); }
  SECTION("the event") {
    charon.Event("ike-updown", UpDownMessage(charon.sas[0], true, false));
    charon.Event("child-updown", UpDownMessage(charon.sas[0], true, true));
  }
  Spin();
  CHECK(Who(in) == "alice.example");
  CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
}

TEST_CASE_METHOD(ViciFixture, "How the peer proved itself is what the connection said then") {
  charon.conns[0].remote_class = "pre-shared key";
  charon.sas = {FakeIke{}};
  Begin();
  CHECK(keys->Identify(in, true).verified.identity.auth == "psk");
  // A connection changed afterwards changes nothing about an IKE_SA that is up, even though a new
  // one shows it, nor does a lost connection to charon.
  charon.conns[0].remote_class = "public key";
  FakeIke second;
  second.id = 2;
  second.spis = "cc";
  second.children[0] = {"db", 2, 70000, 0x102, 0x202};
  charon.sas.push_back(second);
  charon.Event("ike-updown", UpDownMessage(second, true, false));
  charon.Event("child-updown", UpDownMessage(second, true, true));
  Spin();
  CHECK(keys->Identify(in, true).verified.identity.auth == "psk");
  CHECK(keys->Identify(MakeSa("10.9.0.1", "10.9.0.2", 0x102), true).verified.identity.auth ==
        "pubkey");
  charon.Raw("\xff\xff\xff\xff");
  Spin();
  CHECK_FALSE(keys->connected());
  Pass(200);
  CHECK(keys->connected());
  CHECK(keys->Identify(in, true).verified.identity.auth == "psk");
}

TEST_CASE_METHOD(ViciFixture, "An EAP identity is the peer's, and of EAP") {
  charon.conns[0].remote_class = "EAP";
  charon.conns[0].remote_id = "%any";
  charon.sas = {FakeIke{}};
  charon.sas[0].remote_id = "10.9.0.1";
  charon.sas[0].eap_id = "carol";
  Begin();
  const Identified who = keys->Identify(in, true);
  CHECK(who.verified.identity == Identity{"carol", "me.example", "eap"});
  CHECK_FALSE(who.verified.static_reqid);
}

TEST_CASE_METHOD(ViciFixture, "Names that can mean more than one are nobody's") {
  for (const char* id : {"al?ice", "%any", "*.example", "dn:CN=alice", "10.0.0.0/8", ""}) {
    INFO(id);
    charon.sas = {FakeIke{}};
    charon.sas[0].remote_id = id;
    Begin();
    CHECK(Who(in) == "peer-unknown");
    keys.reset();
    charon.Stop();
  }
}

TEST_CASE_METHOD(ViciFixture, "An IKE_SA whose peer has proved nothing yet names nobody") {
  charon.sas = {FakeIke{}};
  charon.sas[0].state = "CONNECTING";
  Begin();
  CHECK(Who(in) == "peer-unknown");
}

TEST_CASE_METHOD(ViciFixture, "Two children of different peers for one SA: ambiguous") {
  FakeIke bob;
  bob.name = "to-bob";
  bob.id = 2;
  bob.remote_id = "bob.example";
  bob.children[0].id = 2;
  charon.sas = {FakeIke{}, bob};
  charon.conns.push_back(FakeConn{});
  charon.conns[1].name = "to-bob";
  Begin();
  CHECK(Who(in) == "ambiguous-peer");
  // Of one peer they agree.
  charon.sas[1].remote_id = "alice.example";
  charon.sas[1].name = "to-alice";
  charon.Event("ike-updown", UpDownMessage(charon.sas[1], true, false));
  Spin();
  CHECK(Who(in) == "alice.example");
}

TEST_CASE_METHOD(ViciFixture, "A reqid is static: large, of one peer, and of one exact id") {
  charon.sas = {FakeIke{}};
  SECTION("small") {
    charon.sas[0].children[0].reqid = 7;
    Begin();
    CHECK_FALSE(
        keys->Identify(MakeSa("10.9.0.1", "10.9.0.2", 0x100, 7), true).verified.static_reqid);
  }
  SECTION("a wildcard") {
    charon.conns[0].remote_id = "*.example";
    Begin();
    CHECK(Who(in) == "alice.example");
    CHECK_FALSE(keys->Identify(in, true).verified.static_reqid);
  }
  SECTION("no id at all") {
    charon.conns[0].remote_id = "";
    Begin();
    CHECK_FALSE(keys->Identify(in, true).verified.static_reqid);
  }
  SECTION("another id than the peer's") {
    charon.conns[0].remote_id = "bob.example";
    Begin();
    CHECK_FALSE(keys->Identify(in, true).verified.static_reqid);
  }
  SECTION("another peer under it, once") {
    Begin();
    CHECK(keys->Identify(in, true).verified.static_reqid);
    FakeIke bob;
    bob.id = 2;
    bob.name = "to-bob";
    bob.remote_id = "bob.example";
    bob.children[0] = {"db", 2, 70000, 0x102, 0x202};
    charon.Event("child-updown", UpDownMessage(bob, true, true));
    Spin();
    CHECK_FALSE(keys->Identify(in, true).verified.static_reqid);
    charon.Event("child-updown", UpDownMessage(bob, false, true));
    Spin();
    CHECK_FALSE(keys->Identify(in, true).verified.static_reqid);
  }
}

TEST_CASE_METHOD(ViciFixture, "A rekey: old and new are known, until the old one is gone") {
  charon.sas = {FakeIke{}};
  Begin();
  const FakeChild fresh{"db", 2, 70000, 0x102, 0x202};
  const Sa fresh_in = MakeSa("10.9.0.1", "10.9.0.2", 0x102);
  charon.Event("child-rekey", ChildRekeyMessage(charon.sas[0], charon.sas[0].children[0], fresh));
  Spin();
  CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
  CHECK(Who(in) == "alice.example");
  CHECK(Who(fresh_in) == "alice.example");
  charon.sas[0].children = {fresh};
  CHECK(Who(foreign) == "pending");  // any list clears it away
  Spin();
  CHECK(Who(fresh_in) == "alice.example");
  CHECK(Who(in) == "pending");
  Spin();
  CHECK(Who(in) == "pending");  // the kernel may have it a little longer
  Pass(15'000);
  CHECK(Who(in) == "peer-unknown");
}

TEST_CASE_METHOD(ViciFixture, "What charon takes away is in doubt for a moment, not denied") {
  charon.sas = {FakeIke{}};
  Begin();
  CHECK(Who(in) == "alice.example");
  const FakeIke gone = charon.sas[0];
  charon.sas.clear();
  charon.Event("ike-updown", UpDownMessage(gone, false, false));
  Spin();
  for (int i = 0; i < 3; ++i) {
    CHECK(Who(in) == "pending");
    CHECK(Who(out, false) == "pending");
    Spin();
  }
  CHECK(Who(foreign) == "pending");
  Spin();
  CHECK(Who(foreign) == "peer-unknown");  // nobody ever had this one
  Pass(14'900);
  CHECK(Who(in) == "pending");
  Take();
  Pass(100);
  CHECK(Count(KeyEvent::Kind::kChanged) == 1);
  CHECK(Who(in) == "peer-unknown");
}

TEST_CASE_METHOD(ViciFixture, "What is replaced is cleared away after so many times") {
  charon.sas = {FakeIke{}};
  Begin();
  const size_t before = charon.Asked("list-sas");
  FakeChild last = charon.sas[0].children[0];
  for (uint32_t i = 0; i < 70; ++i) {
    const FakeChild next{"db", 2 + i, 70000, 0x1000 + i, 0x2000 + i};
    charon.sas[0].children = {next};
    charon.Event("child-rekey", ChildRekeyMessage(charon.sas[0], last, next));
    last = next;
    Spin();
  }
  CHECK(charon.Asked("list-sas") == before + 1);
  CHECK(keys->TakeSnapshot().child_sas < 10);
}

TEST_CASE_METHOD(ViciFixture, "A rekey of the IKE_SA takes its children along") {
  charon.sas = {FakeIke{}};
  Begin();
  FakeIke fresh = charon.sas[0];
  fresh.id = 9;
  charon.holds_lists = true;
  charon.Event("ike-rekey", IkeRekeyMessage(charon.sas[0], fresh));
  charon.Event("ike-updown", UpDownMessage(charon.sas[0], false, false));
  Spin();
  CHECK(Who(in) == "alice.example");
  CHECK(keys->Identify(in, true).verified.identity.auth == "pubkey");
  charon.sas = {fresh};
  charon.ReleaseLists();
  Spin();
  CHECK(Who(in) == "alice.example");
  // What happens to it now goes by its new number.
  charon.Log(9, "giving up after 5 retransmits");
  charon.Event("ike-updown", UpDownMessage(fresh, false, false));
  Spin();
  CHECK(Only(KeyEvent::Kind::kPeerDead).peer.peer_id == "alice.example");
}

TEST_CASE_METHOD(ViciFixture, "Reauthentication as another: the new SAs are the other's") {
  charon.sas = {FakeIke{}};
  Begin();
  FakeIke fresh = charon.sas[0];
  fresh.id = 2;
  fresh.remote_id = "mallory.example";
  fresh.children[0] = {"db", 2, 70000, 0x102, 0x202};
  charon.Event("ike-updown", UpDownMessage(fresh, true, false));
  charon.Event("child-updown", UpDownMessage(fresh, true, true));
  Spin();
  CHECK(Who(in) == "alice.example");
  CHECK(Who(MakeSa("10.9.0.1", "10.9.0.2", 0x102)) == "mallory.example");
}

TEST_CASE_METHOD(ViciFixture, "A peer that moves is known at both ends of the move") {
  charon.sas = {FakeIke{}};
  Begin();
  charon.holds_lists = true;
  charon.Event("ike-update", IkeUpdateMessage(charon.sas[0], "10.9.0.2", "10.9.0.77"));
  Spin();
  const Sa moved = MakeSa("10.9.0.77", "10.9.0.2", 0x100);
  CHECK(Who(in) == "alice.example");
  CHECK(Who(moved) == "alice.example");
  CHECK(keys->Identify(moved, true).verified.peering.remote.ToString() == "10.9.0.77:4500");
  charon.sas[0].remote = "10.9.0.77";
  charon.ReleaseLists();
  Spin();
  CHECK(Who(moved) == "alice.example");
  CHECK(Who(in) == "pending");
}

TEST_CASE_METHOD(ViciFixture, "A dead peer is told apart from one that is sent away") {
  charon.sas = {FakeIke{}};
  Begin();
  const Section down = UpDownMessage(charon.sas[0], false, false);
  SECTION("the line before the event") {
    charon.Log(1, "giving up after 5 retransmits");
    charon.Event("ike-updown", down);
    Spin();
    const KeyEvent dead = Only(KeyEvent::Kind::kPeerDead);
    CHECK(dead.peer == Identity{"alice.example", "me.example", "pubkey"});
    CHECK(dead.remote.ToString() == "10.9.0.1");
    CHECK(dead.detail == "alice.example at 10.9.0.1 does not answer");
  }
  SECTION("the line after the event") {
    charon.sas.clear();
    charon.Event("ike-updown", down);
    Spin();
    CHECK(Count(KeyEvent::Kind::kPeerDead) == 0);
    charon.Log(1, "giving up after 5 retransmits");
    Spin();
    CHECK(Only(KeyEvent::Kind::kPeerDead).peer.peer_id == "alice.example");
  }
  SECTION("terminated") {
    charon.Log(1, "deleting IKE_SA to-alice[1] between 10.9.0.2[me]...10.9.0.1[alice]");
    charon.Event("ike-updown", down);
    Spin();
    CHECK(Count(KeyEvent::Kind::kPeerDead) == 0);
  }
  SECTION("of another IKE_SA") {
    charon.Log(2, "giving up after 5 retransmits");
    charon.Log(0, "giving up after 5 retransmits");
    charon.Event("ike-updown", down);
    Spin();
    CHECK(Count(KeyEvent::Kind::kPeerDead) == 0);
  }
  SECTION("a line that only has the words in it") {
    charon.Log(1, "received cert 'CN=giving up after 5 retransmits'");
    charon.Event("ike-updown", down);
    Spin();
    CHECK(Count(KeyEvent::Kind::kPeerDead) == 0);
  }
}

TEST_CASE_METHOD(ViciFixture, "What doctor shows") {
  charon.sas = {FakeIke{}};
  Begin();
  const ViciKeyManager::Snapshot snapshot = keys->TakeSnapshot();
  CHECK(snapshot.connected);
  CHECK(snapshot.problem.empty());
  CHECK(snapshot.version == "charon 5.9.8");
  CHECK(snapshot.child_sas == 1);
  REQUIRE(snapshot.connections.size() == 1);
  CHECK(snapshot.connections[0].name == "to-alice");
  CHECK(snapshot.connections[0].remote_id == "alice.example");
  CHECK(snapshot.connections[0].remote_auth == "pubkey");
  REQUIRE(snapshot.connections[0].children.size() == 1);
  CHECK(snapshot.connections[0].children[0].name == "db");
}

}  // namespace
}  // namespace latchkey::broker::vici
