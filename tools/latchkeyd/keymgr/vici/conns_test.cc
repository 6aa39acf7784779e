#include "tools/latchkeyd/keymgr/vici/conns.h"

#include <catch2/catch.hpp>

namespace latchkey::broker::vici {
namespace {

TrafficSelector Range(const char* low, const char* high, uint8_t protocol = 0,
                      PortRange ports = {}) {
  return {false, *Address::Parse(low), *Address::Parse(high), protocol, ports};
}

TEST_CASE("Traffic selectors as charon prints them") {
  CHECK(ReadSelector("10.0.0.0/8") == Range("10.0.0.0", "10.255.255.255"));
  CHECK(ReadSelector("10.9.0.1/32") == Range("10.9.0.1", "10.9.0.1"));
  CHECK(ReadSelector("0.0.0.0/0") == Range("0.0.0.0", "255.255.255.255"));
  CHECK(ReadSelector("fd00::/8") == Range("fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
  CHECK(ReadSelector("10.9.0.128/25") == Range("10.9.0.128", "10.9.0.255"));
  CHECK(ReadSelector("10.0.0.1..10.0.0.9") == Range("10.0.0.1", "10.0.0.9"));
  CHECK(ReadSelector("10.0.0.0/8[tcp]") == Range("10.0.0.0", "10.255.255.255", 6));
  CHECK(ReadSelector("10.9.0.1/32[tcp/5433]") == Range("10.9.0.1", "10.9.0.1", 6, {5433, 5433}));
  CHECK(ReadSelector("10.9.0.1/32[tcp/80-90]") == Range("10.9.0.1", "10.9.0.1", 6, {80, 90}));
  CHECK(ReadSelector("10.9.0.1/32[0/80-90]") == Range("10.9.0.1", "10.9.0.1", 0, {80, 90}));
  CHECK(ReadSelector("10.9.0.1/32[udp/53]") == Range("10.9.0.1", "10.9.0.1", 17, {53, 53}));
  CHECK(ReadSelector("10.9.0.1/32[253]") == Range("10.9.0.1", "10.9.0.1", 253));
  TrafficSelector dynamic;
  dynamic.dynamic = true;
  CHECK(ReadSelector("dynamic") == dynamic);
  dynamic.protocol = 6;
  CHECK(ReadSelector("dynamic[tcp]") == dynamic);
  dynamic.ports = {5433, 5433};
  CHECK(ReadSelector("dynamic[tcp/5433]") == dynamic);
}

TEST_CASE("Ports and protocols by name") {
  // Where there are such files: a bare system has none.
  const std::optional<TrafficSelector> web = ReadSelector("dynamic[tcp/http]");
  if (!web) {
    WARN("no names of services on this system");
    return;
  }
  CHECK(web->ports == PortRange{80, 80});
  CHECK(ReadSelector("dynamic[tcp/http-alt]")->ports == PortRange{8080, 8080});
}

TEST_CASE("What is no selector") {
  for (const char* text : {"",
                           "x",
                           "10.0.0.1",
                           "10.0.0.0/33",
                           "10.0.0.0/-1",
                           "10.0.0.0/",
                           "10.0.0.9..10.0.0.1",
                           "10.0.0.1..fd00::1",
                           "dynamic[",
                           "dynamic]",
                           "dynamic[tcp",
                           "dynamic[tcp/]",
                           "dynamic[]",
                           "dynamic[nonsense]",
                           "dynamic[tcp/nonsense]",
                           "dynamic[tcp/OPAQUE]",
                           "dynamic[tcp/65536]",
                           "dynamic[tcp/90-80]",
                           "dynamic[256]",
                           "fd00::/129"}) {
    INFO(text);
    CHECK_FALSE(ReadSelector(text));
  }
}

Section Round(const std::string& kind, const std::string& id) {
  Section round;
  round.Add("class", kind);
  if (!id.empty()) round.Add("id", id);
  return round;
}

ConnConfig Read(const std::vector<Section>& remote) {
  Section message;
  Section& section = message.AddSection("gw");
  section.Add("local_addrs", List{"%any"});
  section.Add("remote_addrs", List{"10.9.0.1", "gw.example"});
  section.AddSection("local-1") = Round("public key", "me");
  int number = 0;
  for (const Section& round : remote) {
    section.AddSection("remote-" + std::to_string(++number)) = round;
  }
  Section& children = section.AddSection("children");
  Section& child = children.AddSection("net");
  child.Add("mode", "TUNNEL");
  child.Add("local-ts", List{"10.1.0.0/16"});
  child.Add("remote-ts", List{"10.2.0.0/16", "bad", "dynamic"});
  children.AddSection("shunt").Add("mode", "DROP");
  const std::optional<ConnConfig> conn = ReadConn(message);
  REQUIRE(conn);
  return *conn;
}

TEST_CASE("A connection") {
  const ConnConfig conn = Read({Round("public key", "gw.example")});
  CHECK(conn.name == "gw");
  CHECK(conn.local_addresses == List{"%any"});
  CHECK(conn.remote_addresses == List{"10.9.0.1", "gw.example"});
  CHECK(conn.local == std::vector<AuthConfig>{{"pubkey", "me"}});
  CHECK(conn.remote == std::vector<AuthConfig>{{"pubkey", "gw.example"}});
  REQUIRE(conn.children.size() == 2);
  CHECK(conn.children[0].name == "net");
  CHECK(conn.children[0].mode == Mode::kTunnel);
  CHECK(conn.children[0].local.size() == 1);
  CHECK(conn.children[0].remote.size() == 2);
  CHECK(conn.children[1].mode == Mode::kUnknown);
  CHECK_FALSE(ReadConn({}));
}

TEST_CASE("How a peer proves itself, and whether it can be but one") {
  CHECK(Read({Round("public key", "a")}).RemoteAuth() == "pubkey");
  CHECK(Read({Round("pre-shared key", "a")}).RemoteAuth() == "psk");
  CHECK(Read({Round("EAP", "a")}).RemoteAuth() == "eap");
  CHECK(Read({Round("any", "a")}).RemoteAuth().empty());
  CHECK(Read({Round("public key", "a"), Round("EAP", "")}).RemoteAuth() == "eap");
  CHECK(Read({Round("pre-shared key", "a"), Round("XAuth", "")}).RemoteAuth() == "psk");
  CHECK(Read({}).RemoteAuth().empty());

  CHECK(Read({Round("public key", "a")}).FixedRemoteId() == "a");
  CHECK(Read({Round("any", "a")}).FixedRemoteId() == "a");
  CHECK(Read({Round("pre-shared key", "a"), Round("XAuth", "")}).FixedRemoteId() == "a");
  CHECK(Read({Round("public key", "")}).FixedRemoteId().empty());
  CHECK(Read({Round("public key", "%any")}).FixedRemoteId().empty());
  CHECK(Read({Round("public key", "*.a")}).FixedRemoteId().empty());
  CHECK(Read({Round("EAP", "a")}).FixedRemoteId().empty());
  CHECK(Read({Round("public key", "a"), Round("public key", "b")}).FixedRemoteId().empty());
  CHECK(Read({Round("public key", "a"), Round("public key", "")}).FixedRemoteId().empty());
  CHECK(Read({}).FixedRemoteId().empty());
  CHECK(Read({Round("public key", "*.a")}).RemoteId() == "*.a");
}

}  // namespace
}  // namespace latchkey::broker::vici
