// Negotiations: which child, how each ends, who joins whom.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/keymgr/vici/vici.h"
#include "tools/latchkeyd/keymgr/vici/vici_fixture.h"

namespace latchkey::broker::vici {
namespace {

using Kind = KeyEvent::Kind;

struct AcquireFixture : ViciFixture {
  AcquireRequest request;

  AcquireFixture() {
    request.flow.local.address = *Address::Parse("10.9.0.2");
    request.flow.remote = {*Address::Parse("10.9.0.1"), 5432};
    request.demand.mode = Mode::kTransport;
  }
  // Begins one, and lets charon hear of it.
  uint64_t Ask() {
    const Result<uint64_t> ticket = keys->Acquire(request);
    REQUIRE(ticket);
    CHECK(*ticket != 0);
    Spin();
    return *ticket;
  }
  // Another peer: to-bob at 10.9.0.N, child db-N.
  void AddPeer(int number) {
    FakeConn conn;
    conn.name = "to-" + std::to_string(number);
    conn.remote_addresses = {"10.9.0." + std::to_string(number)};
    conn.remote_id = "peer" + std::to_string(number) + ".example";
    conn.child = "db-" + std::to_string(number);
    charon.conns.push_back(conn);
  }
  void Toward(int number) {
    request.flow.remote.address = *Address::Parse("10.9.0." + std::to_string(number));
  }
};

TEST_CASE_METHOD(AcquireFixture, "A negotiation that succeeds: the SAs are known when it says so") {
  Begin();
  const uint64_t ticket = Ask();
  REQUIRE(charon.initiates.size() == 1);
  const Section& sent = charon.initiates[0].request;
  CHECK(sent.Value("child") == "db");
  CHECK(sent.Value("ike") == "to-alice");
  CHECK(sent.Value("timeout") == "60000");
  CHECK(sent.Value("loglevel") == "1");
  charon.sas = {FakeIke{}};
  charon.ControlLog(0, "initiating IKE_SA to-alice[1] to 10.9.0.1", 1);

  SECTION("by a list") {
    charon.holds_lists = true;
    charon.Answer(0);
    Spin();
    CHECK(Count(Kind::kAcquired) == 0);
    charon.ReleaseLists();
    Spin();
  }
  SECTION("by an event before the answer, whatever charon is busy with") {
    charon.holds_lists = true;
    charon.Event("ike-updown", UpDownMessage(charon.sas[0], true, false));
    charon.Event("child-updown", UpDownMessage(charon.sas[0], true, true));
    Spin();
    CHECK(Count(Kind::kAcquired) == 0);
    charon.Answer(0);
    Spin();
  }
  SECTION("by an event after it") {
    charon.holds_lists = true;
    charon.Answer(0);
    Spin();
    charon.Event("ike-updown", UpDownMessage(charon.sas[0], true, false));
    charon.Event("child-updown", UpDownMessage(charon.sas[0], true, true));
    Spin();
  }
  const KeyEvent done = Only(Kind::kAcquired);
  CHECK(done.ticket == ticket);
  CHECK(done.reason == Reason::kNone);
  CHECK(Who(in) == "alice.example");
  Take();
  // The next one is another.
  CHECK(Ask() != ticket);
  CHECK(charon.initiates.size() == 2);
}

TEST_CASE_METHOD(AcquireFixture, "The same child for another peer is not what was asked for") {
  Begin();
  Ask();
  charon.ControlLog(0, "initiating IKE_SA to-alice[1] to 10.9.0.1", 1);
  charon.holds_lists = true;
  FakeIke other;
  other.id = 2;
  other.remote = "10.9.0.3";
  charon.Event("child-updown", UpDownMessage(other, true, true));
  charon.Answer(0);
  Spin();
  CHECK(Count(Kind::kAcquired) == 0);
  charon.sas = {FakeIke{}};
  charon.ReleaseLists();
  Spin();
  CHECK(Only(Kind::kAcquired).reason == Reason::kNone);
  CHECK(Who(in) == "alice.example");
}

struct Failure {
  const char* name;
  std::vector<std::string> lines;
  std::string errmsg;
  Reason reason;
  std::string detail;
};

TEST_CASE_METHOD(AcquireFixture, "Each way to fail has its reason, and the line that says it") {
  const std::string failed = "establishing CHILD_SA 'db' failed";
  for (const Failure& failure : {
           Failure{"no such child",
                   {},
                   "CHILD_SA config 'db' not found",
                   Reason::kNoChild,
                   "\"CHILD_SA config 'db' not found\""},
           Failure{"no answer",
                   {"initiating IKE_SA to-alice[1] to 10.9.0.1",
                    "retransmit 5 of request with message ID 0", "giving up after 5 retransmits",
                    "establishing IKE_SA failed, peer not responding"},
                   failed,
                   Reason::kAcquireTimeout,
                   "\"giving up after 5 retransmits\""},
           Failure{"not in time",
                   {},
                   "CHILD_SA 'db' not established after 60000ms",
                   Reason::kAcquireTimeout,
                   "\"CHILD_SA 'db' not established after 60000ms\""},
           Failure{"the peer refuses us",
                   {"received AUTHENTICATION_FAILED notify error"},
                   failed,
                   Reason::kAuthFailed,
                   "\"received AUTHENTICATION_FAILED notify error\""},
           Failure{"its key is not the one",
                   {"tried 1 shared key for 'me.example' - 'alice.example', but MAC mismatched"},
                   failed,
                   Reason::kAuthFailed,
                   "\"tried 1 shared key for 'me.example' - 'alice.example', but MAC mismatched\""},
           Failure{"it is somebody else",
                   {"authentication of 'mallory.example' with ECDSA_WITH_SHA256_DER successful",
                    "constraint check failed: identity 'alice.example' required ",
                    "selected peer config 'to-alice' unacceptable: constraint checking failed",
                    "no alternative config found"},
                   failed,
                   Reason::kPeerMismatch,
                   "\"constraint check failed: identity 'alice.example' required\""},
           Failure{"no suite",
                   {"received NO_PROPOSAL_CHOSEN notify error"},
                   failed,
                   Reason::kNoProposal,
                   "\"received NO_PROPOSAL_CHOSEN notify error\""},
           Failure{"whatever",
                   {"selected something"},
                   failed,
                   Reason::kNoSa,
                   "\"establishing CHILD_SA 'db' failed\""},
       }) {
    INFO(failure.name);
    Begin();
    const uint64_t ticket = Ask();
    REQUIRE(charon.initiates.size() == 1);
    for (const std::string& line : failure.lines) charon.ControlLog(0, line);
    charon.Answer(0, failure.errmsg);
    Spin();
    const KeyEvent done = Only(Kind::kAcquired);
    CHECK(done.ticket == ticket);
    CHECK(wire::ReasonWord(done.reason) == std::string(wire::ReasonWord(failure.reason)));
    CHECK(done.detail == failure.detail);
    keys.reset();
    charon.Stop();
  }
}

TEST_CASE_METHOD(AcquireFixture, "Several for the same child join one negotiation") {
  Begin();
  const uint64_t ticket = Ask();
  CHECK(Ask() == ticket);
  request.child = "db";
  CHECK(Ask() == ticket);
  CHECK(charon.initiates.size() == 1);
  // One that leaves takes nothing from the others.
  keys->Abandon(ticket);
  charon.Answer(0, "establishing CHILD_SA 'db' failed");
  Spin();
  CHECK(Only(Kind::kAcquired).ticket == ticket);
}

TEST_CASE_METHOD(AcquireFixture, "Who abandons hears nothing; who asks again joins it") {
  Begin();
  const uint64_t ticket = Ask();
  keys->Abandon(ticket);
  keys->Abandon(ticket);
  keys->Abandon(4711);
  SECTION("nobody asks again") {
    charon.Answer(0, "establishing CHILD_SA 'db' failed");
    Spin();
    CHECK(Count(Kind::kAcquired) == 0);
  }
  SECTION("somebody does") {
    const uint64_t again = Ask();
    CHECK(charon.initiates.size() == 1);
    charon.sas = {FakeIke{}};
    charon.Answer(0);
    Spin();
    CHECK(Only(Kind::kAcquired).ticket == again);
    CHECK(Only(Kind::kAcquired).reason == Reason::kNone);
  }
}

TEST_CASE_METHOD(AcquireFixture, "Only so many at a time; the others wait their turn") {
  for (int i = 11; i < 31; ++i) AddPeer(i);
  Begin();
  std::vector<uint64_t> tickets;
  for (int i = 11; i < 31; ++i) {
    Toward(i);
    tickets.push_back(Ask());
  }
  CHECK(charon.initiates.size() == kMostWaitedFor);
  // Those that nobody waits for make room, but not without end.
  for (size_t i = 0; i < kMostWaitedFor; ++i) {
    keys->Abandon(tickets[i]);
    Spin();
  }
  CHECK(charon.initiates.size() == kMostRunning);
  charon.Answer(0, "establishing CHILD_SA 'db-11' failed");
  Spin();
  CHECK(charon.initiates.size() == kMostRunning + 1);
  // A queued one that nobody wants is never begun.
  for (size_t i = kMostWaitedFor; i < tickets.size(); ++i) keys->Abandon(tickets[i]);
  for (size_t i = 1; i < charon.initiates.size(); ++i) charon.Answer(i, "failed");
  Spin();
  CHECK(charon.initiates.size() == kMostRunning + 1);
  CHECK(Count(Kind::kAcquired) == 0);
}

TEST_CASE_METHOD(AcquireFixture, "charon that never answers is not waited for for ever") {
  Begin();
  const uint64_t ticket = Ask();
  Pass(kInitiateMs + kSlackMs + 1);
  CHECK(Only(Kind::kAcquired).ticket == ticket);
  CHECK(Only(Kind::kAcquired).reason == Reason::kAcquireTimeout);
}

TEST_CASE_METHOD(AcquireFixture, "No charon: km-lost, or no-child where there was never one") {
  SECTION("there is no socket") {
    Make();
    const Result<uint64_t> ticket = keys->Acquire(request);
    REQUIRE_FALSE(ticket);
    CHECK(ticket.error().reason == Reason::kNoChild);
    CHECK(ticket.error().value.find("charon.vici") != std::string::npos);
  }
  SECTION("it is gone") {
    Begin();
    const uint64_t ticket = Ask();
    charon.Stop();
    Spin();
    CHECK(Only(Kind::kAcquired).ticket == ticket);
    CHECK(Only(Kind::kAcquired).reason == Reason::kKmLost);
    const Result<uint64_t> next = keys->Acquire(request);
    REQUIRE_FALSE(next);
    CHECK(next.error().reason == Reason::kKmLost);
  }
  SECTION("it goes before it has said anything") {
    charon.Start();
    Make();
    const Result<uint64_t> ticket = keys->Acquire(request);
    REQUIRE(ticket);
    charon.Stop();
    Spin();
    CHECK(Only(Kind::kAcquired).ticket == *ticket);
    CHECK(Only(Kind::kAcquired).reason == Reason::kKmLost);
  }
}

TEST_CASE_METHOD(AcquireFixture, "Asked before charon has told its configurations: it waits") {
  charon.Start();
  Make();
  const Result<uint64_t> ticket = keys->Acquire(request);
  REQUIRE(ticket);
  Spin();
  REQUIRE(charon.initiates.size() == 1);
  charon.Answer(0, "CHILD_SA config 'db' not found");
  Spin();
  CHECK(Only(Kind::kAcquired).ticket == *ticket);
}

TEST_CASE_METHOD(AcquireFixture, "No child: said at once where that is fresh, else looked up") {
  Begin();
  Toward(99);
  Result<uint64_t> ticket = keys->Acquire(request);
  REQUIRE_FALSE(ticket);
  CHECK(ticket.error().reason == Reason::kNoChild);
  CHECK(ticket.error().value.find("\"db\" of connection \"to-alice\" has no address") !=
        std::string::npos);
  now += 5000;
  ticket = keys->Acquire(request);
  REQUIRE(ticket);
  SECTION("there is none") {
    Spin();
    CHECK(Only(Kind::kAcquired).ticket == *ticket);
    CHECK(Only(Kind::kAcquired).reason == Reason::kNoChild);
    CHECK(charon.initiates.empty());
  }
  SECTION("it was loaded meanwhile") {
    AddPeer(99);
    Spin();
    CHECK(Count(Kind::kAcquired) == 0);
    REQUIRE(charon.initiates.size() == 1);
    CHECK(charon.initiates[0].request.Value("child") == "db-99");
  }
  SECTION("nobody waits any more") {
    AddPeer(99);
    keys->Abandon(*ticket);
    Spin();
    CHECK(charon.initiates.empty());
  }
}

TEST_CASE_METHOD(AcquireFixture, "A connection without an address: by an IKE_SA that is up") {
  charon.conns[0].remote_addresses = {"%any"};
  Begin();
  CHECK_FALSE(keys->Acquire(request));
  FakeIke ike;
  ike.children.clear();
  charon.Event("ike-updown", UpDownMessage(ike, true, false));
  charon.sas = {ike};
  Spin();
  CHECK(keys->Acquire(request));
  // Not when there are several: charon would take any of them.
  ike.id = 2;
  ike.remote = "10.9.0.3";
  charon.Event("ike-updown", UpDownMessage(ike, true, false));
  Spin();
  CHECK_FALSE(keys->Acquire(request));
}

TEST_CASE_METHOD(AcquireFixture, "What is no answer ends the negotiation, and nothing else") {
  Begin();
  const uint64_t ticket = Ask();
  (void)charon.initiates[0].connection->Send({PacketType::kUnknownCommand, "", {}});
  Spin();
  CHECK(Only(Kind::kAcquired).ticket == ticket);
  CHECK(Only(Kind::kAcquired).reason == Reason::kKmLost);
  CHECK(keys->connected());
}

}  // namespace
}  // namespace latchkey::broker::vici
