// Connections of one flow's own: loaded, negotiated, released; and what a broker before us left.
#include <catch2/catch.hpp>

#include "tools/latchkeyd/keymgr/vici/vici.h"
#include "tools/latchkeyd/keymgr/vici/vici_fixture.h"

namespace latchkey::broker::vici {
namespace {

using Kind = KeyEvent::Kind;

struct OwnLinkFixture : ViciFixture {
  AcquireRequest request;

  OwnLinkFixture() {
    request.flow.local = {*Address::Parse("10.9.0.2"), 40001};
    request.flow.remote = {*Address::Parse("10.9.0.1"), 5432};
    request.demand.mode = Mode::kTransport;
    request.demand.unique = true;
    request.demand.algorithms = policy::Accepted(ProtectionSpec{});
  }
  uint64_t Ask() {
    const Result<uint64_t> ticket = keys->Acquire(request);
    REQUIRE(ticket);
    Spin();
    return *ticket;
  }
  // The SAs that the last `initiate` is about.
  FakeIke Made() {
    FakeIke ike;
    ike.name = charon.initiates.back().request.Value("ike").value_or("");
    ike.children[0].name = ike.name;
    return ike;
  }
  uint64_t Establish() {
    const uint64_t ticket = Ask();
    REQUIRE(charon.initiates.size() == 1);
    charon.sas.push_back(Made());
    charon.Answer(0);
    Spin();
    return ticket;
  }
  // The commands that charon has been given, and of what: "unload-conn NAME".
  std::vector<std::string> Orders() {
    std::vector<std::string> orders;
    for (const Packet& packet : std::exchange(charon.orders, {})) {
      std::string what(
          packet.message.Value("ike").value_or(packet.message.Value("name").value_or("")));
      if (packet.name == "load-conn") what = packet.message.elements.at(0).name;
      orders.push_back(packet.name + " " + what);
    }
    return orders;
  }
};

TEST_CASE_METHOD(OwnLinkFixture, "A flow's own connection is loaded, negotiated, and taken away") {
  Begin();
  const uint64_t ticket = Establish();
  const std::string name = charon.sas[0].name;
  CHECK(name.ends_with("-10.9.0.2:40001-10.9.0.1:5432"));
  CHECK(charon.initiates[0].request.Value("child") == name);
  CHECK(Orders() == std::vector<std::string>{"load-conn " + name});
  CHECK(Only(Kind::kAcquired).ticket == ticket);
  CHECK(Only(Kind::kAcquired).reason == Reason::kNone);
  CHECK(Who(in) == "alice.example");                    // by the copy's own configuration
  CHECK(keys->TakeSnapshot().connections.size() == 1);  // the configured one
  keys->Release(request.flow);
  Spin();
  CHECK(Orders() == std::vector<std::string>{"terminate " + name, "unload-conn " + name});
  keys->Release(request.flow);
  Spin();
  CHECK(Orders().empty());
}

TEST_CASE_METHOD(OwnLinkFixture, "A flow's own connection serves no other flow") {
  Begin();
  Establish();
  request.demand.unique = false;
  Ask();
  CHECK(charon.initiates.back().request.Value("ike") == "to-alice");
}

TEST_CASE_METHOD(OwnLinkFixture, "Each flow has its own") {
  Begin();
  const uint64_t first = Ask();
  request.flow.local.port = 40002;
  CHECK(Ask() != first);
  REQUIRE(charon.initiates.size() == 2);
  CHECK(charon.initiates[0].request.Value("ike") != charon.initiates[1].request.Value("ike"));
}

TEST_CASE_METHOD(OwnLinkFixture, "A negotiation that fails leaves nothing behind") {
  Begin();
  Ask();
  const std::string name = Made().name;
  charon.Answer(0, "establishing CHILD_SA failed");
  Spin();
  CHECK(Only(Kind::kAcquired).reason != Reason::kNone);
  CHECK(Orders() ==
        std::vector<std::string>{"load-conn " + name, "terminate " + name, "unload-conn " + name});
}

TEST_CASE_METHOD(OwnLinkFixture, "A flow that is over before charon is done") {
  Begin();
  const uint64_t ticket = Ask();
  const std::string name = Made().name;
  keys->Abandon(ticket);
  keys->Release(request.flow);
  Spin();
  CHECK(Orders() == std::vector<std::string>{"load-conn " + name});
  charon.sas.push_back(Made());
  charon.Answer(0);
  Spin();
  CHECK(Orders() == std::vector<std::string>{"terminate " + name, "unload-conn " + name});
}

TEST_CASE_METHOD(OwnLinkFixture, "What charon does not take, and what cannot be copied") {
  SECTION("refused") {
    charon.refuses_conns = "invalid value for: esp_proposals";
    Begin();
    Ask();
    CHECK(Only(Kind::kAcquired).reason == Reason::kNoChild);
    CHECK(Only(Kind::kAcquired).detail.find("esp_proposals") != std::string::npos);
    CHECK(charon.initiates.empty());
  }
  SECTION("not copied") {
    charon.conns[0].remote_cacerts = {"CN=ca"};
    Begin();
    const Result<uint64_t> ticket = keys->Acquire(request);
    REQUIRE_FALSE(ticket);
    CHECK(ticket.error().reason == Reason::kNoChild);
    CHECK(ticket.error().value.find("cacerts") != std::string::npos);
  }
}

TEST_CASE_METHOD(OwnLinkFixture, "What a broker before us left") {
  const std::string up = "latchkey-5-10.9.0.2:40001-10.9.0.1:5432";
  const std::string down = "latchkey-6-10.9.0.2:40002-10.9.0.1:5432";
  for (const std::string& name : {up, down}) {
    FakeConn conn;
    conn.name = conn.child = name;
    charon.conns.push_back(conn);
  }
  FakeIke ike;
  ike.name = ike.children[0].name = up;
  charon.sas = {ike};
  SECTION("without an IKE_SA it goes, with one when its flow does") {
    Begin();
    CHECK(Orders() == std::vector<std::string>{"terminate " + down, "unload-conn " + down});
    keys->Release(request.flow);
    Spin();
    CHECK(Orders() == std::vector<std::string>{"terminate " + up, "unload-conn " + up});
  }
  SECTION("a flow that ended meanwhile") {
    charon.Start();
    Make();
    keys->Release(request.flow);
    Spin();
    CHECK(Orders().size() == 4);
  }
}

TEST_CASE_METHOD(OwnLinkFixture, "charon is away while a flow ends") {
  Begin();
  Establish();
  const std::string name = charon.sas[0].name;
  Orders();
  charon.Stop();
  Spin();
  keys->Release(request.flow);
  charon.Start();
  Pass(5'000);
  CHECK(Orders() == std::vector<std::string>{"terminate " + name, "unload-conn " + name});
}

}  // namespace
}  // namespace latchkey::broker::vici
