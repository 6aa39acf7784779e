#include "tools/latchkeyd/keymgr/keyring.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <optional>
#include <string>

#include "tools/latchkeyd/keymgr/vici/vici_fixture.h"

namespace latchkey::broker {
namespace {

struct Fixture : vici::ViciFixture {
  ManualKeyManager pad{"keyring-pad.toml", nullptr, getuid()};
  std::optional<Keyring> ring;

  Fixture() {
    unlink("keyring-pad.toml");
    charon.sas = {vici::FakeIke{}};
  }
  ~Fixture() { unlink("keyring-pad.toml"); }
  static void Write(const std::string& id) {
    std::ofstream("keyring-pad.new")
        << "[[sa]]\nreqid = 70000\nremote = [\"10.9.0.1\"]\nid = \"" << id << "\"\n";
    REQUIRE(chmod("keyring-pad.new", 0644) == 0);
    REQUIRE(rename("keyring-pad.new", "keyring-pad.toml") == 0);
  }
  void BeginRing() {
    Begin();
    ring.emplace(pad, keys.get());
  }
  std::string Peer(const Sa& sa, bool inbound = true) {
    const Identified who = ring->Identify(sa, inbound);
    if (who.pending()) return "pending";
    if (!who.known()) return wire::ReasonWord(who.why);
    return who.verified.identity.peer_id + " by " + who.verified.identity.auth;
  }
};

TEST_CASE_METHOD(Fixture, "The PAD first, then charon") {
  BeginRing();
  CHECK(Peer(in) == "alice.example by pubkey");
  CHECK(Peer(foreign) == "pending");
  Spin();
  CHECK(Peer(foreign) == "peer-unknown");
  Write("alice.example");
  CHECK(ring->Refresh());
  CHECK_FALSE(ring->Refresh());
  CHECK(Peer(in) == "alice.example by manual");
  CHECK(Peer(out, false) == "alice.example by manual");
  CHECK(Peer(foreign) == "alice.example by manual");
}

TEST_CASE_METHOD(Fixture, "What both name differently is nobody's") {
  Write("bob");
  BeginRing();
  CHECK(Peer(in) == "ambiguous-peer");
  // What only one of them knows has one name; charon is not asked about it.
  const size_t before = charon.Asked("list-sas");
  CHECK(Peer(foreign) == "bob by manual");
  Spin();
  CHECK(charon.Asked("list-sas") == before);
  // charon learns of it later, and says so.
  vici::FakeIke ike;
  ike.children[0] = {"db", 2, 70000, 0x666, 0x667};
  charon.Event("child-updown", vici::UpDownMessage(ike, true, true));
  Spin();
  CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
  CHECK(Peer(foreign) == "ambiguous-peer");
}

TEST_CASE_METHOD(Fixture, "charon negotiates, and its events are passed on") {
  BeginRing();
  AcquireRequest request;
  request.flow.local.address = *Address::Parse("10.9.0.2");
  request.flow.remote = {*Address::Parse("10.9.0.1"), 5432};
  const Result<uint64_t> ticket = ring->Acquire(request);
  REQUIRE(ticket);
  CHECK(ring->Fd() == keys->Fd());
  std::vector<KeyEvent> seen;
  for (int i = 0; i < 50 && seen.empty(); ++i) {
    charon.Serve();
    if (charon.initiates.size() == 1) charon.Answer(0, "establishing CHILD_SA 'db' failed");
    ring->OnReadable();
    seen = ring->TakeEvents();
  }
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].kind == KeyEvent::Kind::kAcquired);
  CHECK(seen[0].ticket == *ticket);
  const Result<uint64_t> other = ring->Acquire(request);
  REQUIRE(other);
  ring->Abandon(*other);
  Spin();
  CHECK(Count(KeyEvent::Kind::kAcquired) == 0);
}

TEST_CASE_METHOD(Fixture, "Without charon keys are manual") {
  Write("bob");
  SECTION("it is not asked at all") { ring.emplace(pad, nullptr); }
  SECTION("this host has none") {
    Make();
    ring.emplace(pad, keys.get());
  }
  CHECK(Peer(in) == "bob by manual");
  CHECK(Peer(vici::MakeSa("10.9.0.7", "10.9.0.2", 1)) == "peer-unknown");
  CHECK(ring->Acquire({}).error().reason == Reason::kNoSa);
  ring->Abandon(1);
  ring->OnReadable();
  (void)ring->TakeEvents();
}

}  // namespace
}  // namespace latchkey::broker
