// A charon that comes and goes, or says what is not VICI.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/keymgr/vici/vici.h"
#include "tools/latchkeyd/keymgr/vici/vici_fixture.h"

namespace latchkey::broker::vici {
namespace {

using std::string_literals::operator""s;

TEST_CASE_METHOD(ViciFixture, "No charon, and never one: nobody is known, and it is looked for") {
  Make();
  CHECK(Who(in) == "peer-unknown");
  Spin();
  CHECK(log.empty());
  CHECK_FALSE(keys->TakeSnapshot().problem.empty());
  charon.sas = {FakeIke{}};
  charon.Start();
  Pass(3000);
  CHECK(keys->connected());
  CHECK(Who(in) == "alice.example");
}

TEST_CASE_METHOD(ViciFixture, "A charon that is not running although there is its socket") {
  charon.Start();
  charon.Stop(/*leave=*/true);
  Make();
  CHECK(Who(in) == "km-lost");
}

TEST_CASE_METHOD(ViciFixture, "Events wait behind no answer: commands have other connections") {
  charon.sas = {FakeIke{}};
  Begin();
  for (const char* command : {"list-conns", "list-sas", "version"}) {
    CAPTURE(command);
    CHECK(charon.Asked(command) > 0);
  }
  CHECK(charon.behind.empty());
}

TEST_CASE_METHOD(ViciFixture, "The connection is lost: what was known stays, all else is lost") {
  charon.sas = {FakeIke{}};
  Begin();
  CHECK(Who(in) == "alice.example");
  charon.Stop();
  Spin();
  CHECK_FALSE(keys->connected());
  CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
  CHECK(Who(in) == "alice.example");
  CHECK(Who(foreign) == "km-lost");
  Take();

  SECTION("charon knows it still") {
    charon.Start();
    Pass(3000);
    CHECK(keys->connected());
    CHECK(Who(in) == "alice.example");
    CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
  }
  SECTION("charon knows it no more, and has another with its numbers") {
    FakeIke bob;
    bob.name = "to-bob";
    bob.remote_id = "bob.example";
    bob.remote = "10.9.0.3";
    charon.sas = {bob};
    charon.Start();
    charon.holds_lists = true;
    Pass(3000);
    CHECK(Who(in) == "alice.example");  // until the list is there
    CHECK(Count(KeyEvent::Kind::kReturned) == 0);
    charon.ReleaseLists();
    Spin();
    CHECK(Count(KeyEvent::Kind::kReturned) == 1);
    CHECK(Who(in) == "km-lost");
    CHECK(Who(out, false) == "km-lost");
    CHECK(Who(MakeSa("10.9.0.3", "10.9.0.2", 0x100)) == "bob.example");
    CHECK(Count(KeyEvent::Kind::kChanged) >= 1);
    // One that was never known is not lost.
    CHECK(Who(foreign) == "pending");
    Spin();
    CHECK(Who(foreign) == "peer-unknown");
  }
}

TEST_CASE_METHOD(ViciFixture, "It is tried again ever less often, and told once") {
  Begin();
  charon.Stop();
  Spin();
  log.clear();
  int64_t waited = 0;
  for (int i = 0; i < 12; ++i) {
    Pass(500);
    waited += 500;
  }
  CHECK(log.size() == 1);  // the reason changed from "closed" to "no such file"
  charon.Start();
  Pass(2000);
  CHECK(keys->connected());
}

TEST_CASE_METHOD(ViciFixture, "What is no VICI ends the connection, and it is made again") {
  charon.sas = {FakeIke{}};
  for (const std::string& octets :
       {"\xff\xff\xff\xff"s, "\0\0\0\0"s, "\0\0\0\x01\x63"s, "\0\0\0\x02\x07\xff"s,
        "\0\0\0\x05\x07\x01x\x02\x02"s, "\0\0\0\x01\x01"s, "\0\0\0\x01\x02"s}) {
    Begin();
    CHECK(Who(in) == "alice.example");
    charon.Raw(octets);
    Spin();
    CHECK_FALSE(keys->connected());
    CHECK(Who(in) == "alice.example");
    Pass(200);
    CHECK(keys->connected());
    keys.reset();
    charon.Stop();
  }
}

TEST_CASE_METHOD(ViciFixture, "Events without what they should have are survived, and looked up") {
  charon.sas = {FakeIke{}};
  Begin();
  Section empty;
  Section two = UpDownMessage(charon.sas[0], true, true);
  two.AddSection("another").Add("uniqueid", "1");
  Section odd;
  odd.AddSection("to-alice").Add("uniqueid", "x");
  for (const char* name :
       {"ike-updown", "child-updown", "ike-rekey", "child-rekey", "ike-update", "log"}) {
    for (const Section& message : {empty, two, odd}) charon.Event(name, message);
  }
  Spin();
  CHECK(keys->connected());
  CHECK(Who(in) == "alice.example");
}

TEST_CASE_METHOD(ViciFixture, "A charon that knows fewer events will do; a mute one will not") {
  charon.unknown_events = {"ike-update"};
  charon.sas = {FakeIke{}};
  Begin();
  CHECK(Who(in) == "alice.example");
  keys.reset();
  charon.Stop();

  charon.mute = true;
  charon.Start();
  Make();
  Spin();
  CHECK(Who(in) == "pending");
  Pass(11'000);
  CHECK(Who(in) == "km-lost");
}

}  // namespace
}  // namespace latchkey::broker::vici
