#include "tools/latchkeyd/keymgr/vici/sas.h"

#include <catch2/catch.hpp>

namespace latchkey::broker::vici {
namespace {

Section Child() {
  Section child;
  child.Add("name", "db");
  child.Add("uniqueid", "3");
  child.Add("reqid", "70000");
  child.Add("state", "INSTALLED");
  child.Add("mode", "TRANSPORT");
  child.Add("protocol", "ESP");
  child.Add("encap", "yes");
  child.Add("spi-in", "c0ffee01");
  child.Add("spi-out", "00000002");
  child.Add("encr-alg", "AES_CBC");
  child.Add("encr-keysize", "256");
  child.Add("integ-alg", "HMAC_SHA2_256_128");
  child.Add("esn", "1");
  child.Add("local-ts", List{"10.1.0.0/16", "fd01::/64"});
  child.Add("remote-ts", List{"10.2.0.0/16[tcp/5432]"});
  return child;
}

Section Ike() {
  Section ike;
  ike.Add("uniqueid", "12");
  ike.Add("version", "2");
  ike.Add("state", "ESTABLISHED");
  ike.Add("local-host", "10.9.0.2");
  ike.Add("local-port", "4500");
  ike.Add("local-id", "me.example");
  ike.Add("remote-host", "fd00::1");
  ike.Add("remote-port", "4501");
  ike.Add("remote-id", "C=CH, O=x, CN=alice");
  ike.Add("initiator-spi", "aa");
  ike.Add("responder-spi", "bb");
  ike.Add("nat-local", "yes");
  ike.Add("nat-any", "yes");
  return ike;
}

// The same with something changed.
Section With(Section section, const std::string& name, const std::string& value) {
  std::erase_if(section.elements, [&](const Element& element) { return element.name == name; });
  if (!value.empty()) section.Add(name, value);
  return section;
}

TEST_CASE("An IKE_SA with a child") {
  Section message;
  message.Add("up", "yes");
  Section& section = message.AddSection("to-alice");
  section = Ike();
  section.AddSection("child-sas").AddSection("db-3") = Child();
  const std::optional<UpDown> read = ReadUpDown(message);
  REQUIRE(read);
  CHECK(read->up);
  const IkeSa& ike = read->ike;
  CHECK(ike.name == "to-alice");
  CHECK(ike.id == 12);
  CHECK(ike.spis == "aa-bb");
  CHECK(ike.authenticated());
  CHECK(ike.local.ToString() == "10.9.0.2:4500");
  CHECK(ike.remote.ToString() == "[fd00::1]:4501");
  CHECK(ike.local_id == "me.example");
  CHECK(ike.peer_id() == "C=CH, O=x, CN=alice");
  CHECK(ike.peering() == Peering{ike.local, ike.remote, true, false});
  CHECK(ike.nat_any);
  REQUIRE(ike.children.size() == 1);
  const ChildSa& child = ike.children[0];
  CHECK(child == ChildSa{"db",
                         3,
                         70000,
                         "INSTALLED",
                         Mode::kTransport,
                         SaProtocol::kEsp,
                         true,
                         0xc0ffee01,
                         2,
                         "aes-cbc",
                         "hmac-sha2-256",
                         256,
                         true,
                         {"10.1.0.0/16", "fd01::/64"},
                         {"10.2.0.0/16[tcp/5432]"}});
  CHECK(child.installed());
}

TEST_CASE("A configuration may be called what a value is called") {
  Section message;
  message.AddSection("up") = Ike();
  const std::optional<UpDown> read = ReadUpDown(message);
  REQUIRE(read);
  CHECK_FALSE(read->up);
  CHECK(read->ike.name == "up");
  message.Add("up", "yes");
  CHECK(ReadUpDown(message)->up);
}

TEST_CASE("Parts that an SA cannot be without") {
  const auto read = [](const Section& section) {
    Section message;
    message.AddSection("x") = section;
    return ReadUpDown(message);
  };
  CHECK(read(Ike()));
  for (const char* name : {"uniqueid", "local-host", "remote-host"}) {
    INFO(name);
    CHECK_FALSE(read(With(Ike(), name, "")));
    CHECK_FALSE(read(With(Ike(), name, "x")));
  }
  CHECK_FALSE(read(With(Ike(), "remote-host", "%any")));
  CHECK_FALSE(read(With(Ike(), "remote-port", "65536")));
  CHECK_FALSE(ReadUpDown({}));
  for (const char* state : {"", "CREATED", "CONNECTING", "DESTROYING"}) {
    CHECK_FALSE(read(With(Ike(), "state", state))->ike.authenticated());
  }
  // A child without its numbers is left out; one without SPIs is not in the kernel.
  Section with_child = Ike();
  Section& children = with_child.AddSection("child-sas");
  children.AddSection("a") = With(Child(), "uniqueid", "");
  children.AddSection("b") = With(Child(), "reqid", "-1");
  children.AddSection("c") = With(Child(), "spi-in", "");
  children.AddSection("d") = With(Child(), "protocol", "IPCOMP");
  REQUIRE(read(with_child)->ike.children.size() == 2);
  CHECK_FALSE(read(with_child)->ike.children[0].installed());
  CHECK_FALSE(read(with_child)->ike.children[1].installed());
}

TEST_CASE("Names that can only mean one") {
  for (const char* id : {"alice.example", "bob@example", "C=CH, O=x, CN=moon", "10.9.0.1",
                         "fd00::1", "a-b.example", "C=CH/x", "0x1234"}) {
    INFO(id);
    CHECK(Plain(id));
  }
  for (const std::string& id :
       {std::string(), std::string("%any"), std::string("%any6"), std::string("al?ice"),
        std::string("*.example"), std::string("C=CH, CN=*"), std::string("10.0.0.0/8"),
        std::string("10.0.0.1-10.0.0.9"), std::string("fd00::/8"), std::string("fqdn:a"),
        std::string("dn:CN=a"), std::string("keyid:1"), std::string("ip:10.9.0.1"),
        std::string("email:a@b"), std::string("(unknown ID type: 9)"), std::string("^a.*$"),
        std::string("a\0b", 3), std::string(256, 'a')}) {
    INFO(id);
    CHECK_FALSE(Plain(id));
  }
}

TEST_CASE("The EAP identity is the peer's; XAuth's name is not") {
  Section message;
  message.AddSection("x") = With(With(Ike(), "remote-eap-id", "carol"), "remote-xauth-id", "dave");
  CHECK(ReadUpDown(message)->ike.peer_id() == "carol");
  message = {};
  message.AddSection("x") = With(Ike(), "remote-xauth-id", "dave");
  CHECK(ReadUpDown(message)->ike.peer_id() == "C=CH, O=x, CN=alice");
}

TEST_CASE("Rekeys, updates and lines of the log") {
  Section rekey;
  Section& section = rekey.AddSection("to-alice");
  section = Ike();
  Section& pair = section.AddSection("child-sas").AddSection("db");
  pair.AddSection("old") = Child();
  pair.AddSection("new") = With(Child(), "uniqueid", "4");
  const std::optional<ChildRekey> child = ReadChildRekey(rekey);
  REQUIRE(child);
  CHECK(child->from.id == 3);
  CHECK(child->to.id == 4);
  CHECK(child->ike.children.empty());

  Section again;
  Section& ike = again.AddSection("to-alice");
  ike.AddSection("old") = Ike();
  CHECK_FALSE(ReadIkeRekey(again));
  ike.AddSection("new") = With(Ike(), "uniqueid", "13");
  REQUIRE(ReadIkeRekey(again));
  CHECK(ReadIkeRekey(again)->from.id == 12);
  CHECK(ReadIkeRekey(again)->to.id == 13);
  CHECK(ReadIkeRekey(again)->to.name == "to-alice");

  Section update;
  update.Add("local-host", "10.9.0.2");
  update.Add("local-port", "4500");
  update.Add("remote-host", "10.9.0.77");
  CHECK_FALSE(ReadIkeUpdate(update));
  update.AddSection("to-alice") = Ike();
  REQUIRE(ReadIkeUpdate(update));
  CHECK(ReadIkeUpdate(update)->remote.ToString() == "10.9.0.77:0");
  CHECK(ReadIkeUpdate(update)->ike.remote.ToString() == "[fd00::1]:4501");

  Section line;
  line.Add("group", "IKE");
  line.Add("ikesa-uniqueid", "7");
  line.Add("msg", "text");
  const LogLine read = ReadLogLine(line);
  CHECK(read.group == "IKE");
  CHECK(read.ike_id == 7);
  CHECK(read.text == "text");
}

}  // namespace
}  // namespace latchkey::broker::vici
