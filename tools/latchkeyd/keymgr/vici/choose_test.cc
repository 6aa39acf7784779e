#include "tools/latchkeyd/keymgr/vici/choose.h"

#include <catch2/catch.hpp>

namespace latchkey::broker::vici {
namespace {

ConnConfig Conn(const std::string& name, const std::string& remote_address, const std::string& id,
                const std::string& child, Mode mode, const std::string& local,
                const std::string& remote) {
  ConnConfig conn;
  conn.name = name;
  conn.local_addresses = {"%any"};
  conn.remote_addresses = {remote_address};
  conn.remote = {{"pubkey", id}};
  conn.children = {{child, mode, {*ReadSelector(local)}, {*ReadSelector(remote)}}};
  return conn;
}

struct Fixture {
  std::vector<ConnConfig> conns;
  std::optional<Address> up;  // where the IKE_SAs of every connection end
  Wanted wanted;

  Fixture() {
    wanted.flow.local.address = *Address::Parse("10.9.0.2");
    wanted.flow.remote = {*Address::Parse("10.9.0.1"), 5432};
  }
  ConnConfig& Host(const std::string& name, const std::string& id = "alice",
                   const std::string& remote = "dynamic[tcp/5432]") {
    return conns.emplace_back(
        Conn(name, "10.9.0.1", id, "db", Mode::kTransport, "dynamic", remote));
  }
  Result<Choice> Go() const {
    return Choose(conns, wanted, [this](const std::string&) { return up; });
  }
  std::string Text() const {
    const Result<Choice> choice = Go();
    if (choice) return choice->ike + "/" + choice->child;
    return wire::ReasonWord(choice.error().reason);
  }
};

TEST_CASE_METHOD(Fixture, "The child that covers the flow") {
  CHECK(Text() == "no-child");
  Host("a");
  CHECK(Text() == "a/db");
  wanted.flow.remote.port = 80;
  CHECK(Text() == "no-child");
  wanted.flow.remote.port = 5432;
  wanted.flow.protocol = kProtocolUdp;
  CHECK(Text() == "no-child");
  wanted.flow.protocol = kProtocolTcp;
  wanted.flow.remote.address = *Address::Parse("10.9.0.3");
  CHECK(Text() == "no-child");
  wanted.flow.remote.address = *Address::Parse("fd00::1");
  CHECK(Text() == "no-child");
}

TEST_CASE_METHOD(Fixture, "By its mode") {
  Host("a");
  conns.push_back(
      Conn("gw", "10.9.0.254", "gw", "net", Mode::kTunnel, "10.9.0.0/24", "10.9.0.0/24"));
  CHECK(Text() == "a/db");  // either would do, and it covers less
  wanted.mode = Mode::kTunnel;
  CHECK(Text() == "gw/net");
  wanted.mode = Mode::kTransport;
  CHECK(Text() == "a/db");
  conns[0].children[0].mode = Mode::kUnknown;
  CHECK(Text() == "no-child");
}

TEST_CASE_METHOD(Fixture, "The narrowest, and of equals one peer's") {
  Host("wide", "alice", "10.9.0.0/24[tcp]");
  Host("ports", "alice", "10.9.0.1/32[tcp/5000-6000]");
  CHECK(Text() == "ports/db");
  Host("exact", "alice");
  CHECK(Text() == "exact/db");
  Host("again", "alice");
  CHECK(Text() == "exact/db");
  Host("other", "bob");
  CHECK(Text() == "ambiguous-peer");
  CHECK(Go().error().value.find("\"exact\" and \"other\"") != std::string::npos);
  // Unless the rule says whom it wants.
  const PeerSpec bob{"bob", {"bob"}, {}};
  wanted.peers = {bob};
  CHECK(Text() == "other/db");
}

TEST_CASE_METHOD(Fixture, "By whom the rule allows") {
  Host("a", "alice");
  wanted.peers = {PeerSpec{"p", {"bob", "carol"}, {}}};
  CHECK(Text() == "no-child");
  CHECK(Go().error().value.find("the rule does not allow") != std::string::npos);
  wanted.peers = {PeerSpec{"p", {"alice"}, {}}};
  CHECK(Text() == "a/db");
  wanted.peers = {PeerSpec{"p", {"alice"}, {"psk"}}};
  CHECK(Text() == "no-child");
  wanted.peers = {PeerSpec{"p", {}, {"pubkey"}}};
  CHECK(Text() == "a/db");
  wanted.peers = {PeerSpec{"p", {"alice"}, {}}, PeerSpec{"q", {"bob"}, {}}};
  CHECK(Text() == "no-child");
  // Any peer may come, and may be the one.
  wanted.peers = {PeerSpec{"p", {"bob"}, {}}};
  for (const char* id : {"%any", "", "*.example"}) {
    conns[0].remote[0].id = id;
    CHECK(Text() == "a/db");
  }
  wanted.peers[0].auth = {"psk"};
  CHECK(Text() == "no-child");
  conns[0].remote[0].auth = "";  // any
  CHECK(Text() == "a/db");
}

TEST_CASE_METHOD(Fixture, "Where charon would send to") {
  ConnConfig& conn = Host("a");
  SECTION("the first address counts, ranges do not") {
    conn.remote_addresses = {"10.0.0.0/8", "10.9.0.1", "10.9.0.3"};
    CHECK(Text() == "a/db");
    conn.remote_addresses = {"10.9.0.3", "10.9.0.1"};
    CHECK(Text() == "no-child");
  }
  SECTION("nowhere, unless the peer is there") {
    for (const char* address : {"%any", "%any4", "0.0.0.0", "10.0.0.0/8", "10.9.0.1-10.9.0.9"}) {
      INFO(address);
      conn.remote_addresses = {address};
      up.reset();
      CHECK(Text() == "no-child");
      up = Address::Parse("10.9.0.1");
      CHECK(Text() == "a/db");
      up = Address::Parse("10.9.0.3");
      CHECK(Text() == "no-child");
    }
  }
  SECTION("a host name, where the rule names the child") {
    conn.remote_addresses = {"db.example"};
    CHECK(Text() == "no-child");
    wanted.child = "db";
    CHECK(Text() == "a/db");
  }
  SECTION("a tunnel ends elsewhere") {
    conn.children[0].mode = Mode::kTunnel;
    conn.children[0].remote = {*ReadSelector("10.9.0.0/24")};
    conn.remote_addresses = {"10.9.0.254"};
    CHECK(Text() == "a/db");
    conn.children[0].remote = {*ReadSelector("dynamic")};
    CHECK(Text() == "no-child");
  }
}

TEST_CASE_METHOD(Fixture, "Our own end") {
  ConnConfig& conn = Host("a");
  conn.local_addresses = {"10.9.0.2"};
  CHECK(Text() == "a/db");
  conn.local_addresses = {"10.9.0.3"};
  CHECK(Text() == "no-child");
  wanted.flow.local.address = Address::AnyOf(Family::kV4);
  CHECK(Text() == "a/db");
  wanted.flow.local.address = {};
  CHECK(Text() == "a/db");
  // A port that is not known yet is an ephemeral one.
  conn.children[0].local = {*ReadSelector("dynamic[tcp/5432]")};
  CHECK(Text() == "no-child");
  wanted.flow.local.port = 5432;
  CHECK(Text() == "a/db");
}

TEST_CASE_METHOD(Fixture, "By name") {
  Host("a");
  wanted.child = "web";
  CHECK(Text() == "no-child");
  CHECK(Go().error().value == "charon has no child \"web\"");
  wanted.child = "db";
  CHECK(Text() == "a/db");
  // One name in several connections: by the flow.
  conns.push_back(Conn("b", "10.9.0.3", "bob", "db", Mode::kTransport, "dynamic", "dynamic"));
  CHECK(Text() == "a/db");
  wanted.flow.remote.address = *Address::Parse("10.9.0.3");
  CHECK(Text() == "b/db");
  conns.push_back(Conn("c", "10.9.0.3", "carol", "db", Mode::kTransport, "dynamic", "dynamic"));
  CHECK(Text() == "ambiguous-peer");
  wanted.flow.remote.address = *Address::Parse("10.9.0.4");
  CHECK(Text() == "no-child");
  CHECK(Go().error().value.find("no address to initiate to") != std::string::npos);
}

}  // namespace
}  // namespace latchkey::broker::vici
