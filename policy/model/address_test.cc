// Addresses, prefixes and their wire form.
#include "policy/model/address.h"

#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace latchkey {
namespace {

Address A(const char* text) {
  const std::optional<Address> address = Address::Parse(text);
  REQUIRE(address.has_value());
  return *address;
}

Prefix P(const char* text) {
  const std::optional<Prefix> prefix = Prefix::Parse(text);
  REQUIRE(prefix.has_value());
  return *prefix;
}

TEST_CASE("Addresses are read and written") {
  struct Row {
    const char* text;
    Family family;
    const char* written;
  };
  const std::vector<Row> rows = {
      {"10.9.0.1", Family::kV4, "10.9.0.1"},
      {"0.0.0.0", Family::kV4, "0.0.0.0"},
      {"255.255.255.255", Family::kV4, "255.255.255.255"},
      {"fd00::1", Family::kV6, "fd00::1"},
      {"FD00:0:0::1", Family::kV6, "fd00::1"},
      {"::", Family::kV6, "::"},
      {"::ffff:10.9.0.1", Family::kV4, "10.9.0.1"},
      {"::ffff:0a09:1", Family::kV4, "10.9.0.1"},
      {"::10.9.0.1", Family::kV6, "::10.9.0.1"},
  };
  for (const Row& row : rows) {
    INFO(row.text);
    CHECK(A(row.text).family == row.family);
    CHECK(A(row.text).ToString() == row.written);
  }
}

TEST_CASE("What is no address gives nothing") {
  for (const char* text : {"", " ", "10.9.0", "10.9.0.256", "10.9.0.1 ", " 10.9.0.1", "010.9.0.1",
                           "10.9.0.1/8", "fe80::1%eth0", "fd00:::1", "db1.example", "[fd00::1]"}) {
    INFO(text);
    CHECK_FALSE(Address::Parse(text).has_value());
  }
  CHECK_FALSE(Address::Parse(std::string_view("10.9.0.1\0x", 10)).has_value());
}

TEST_CASE("Any and loopback") {
  CHECK(A("0.0.0.0").IsAny());
  CHECK(A("::").IsAny());
  CHECK_FALSE(A("::1").IsAny());
  CHECK(A("127.0.0.1").IsLoopback());
  CHECK(A("127.255.255.255").IsLoopback());
  CHECK(A("::ffff:127.0.0.1").IsLoopback());
  CHECK(A("::1").IsLoopback());
  CHECK_FALSE(A("128.0.0.1").IsLoopback());
  CHECK_FALSE(A("::").IsLoopback());
  CHECK_FALSE(A("7f00::1").IsLoopback());
  CHECK_FALSE(A("100::1").IsLoopback());
  CHECK_FALSE(Address{}.IsLoopback());
  CHECK(Address{}.ToString() == "-");
  CHECK(Address::AnyOf(Family::kV6) == A("::"));
  CHECK(A("10.0.0.1").Bits() == 32);
  CHECK(A("fd00::1").Bits() == 128);
}

TEST_CASE("Raw octets: v4-mapped ones are IPv4") {
  const uint8_t v4[4] = {10, 9, 0, 1};
  CHECK(Address::FromV4(v4) == A("10.9.0.1"));
  const uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 1};
  CHECK(Address::FromV6(mapped) == A("10.9.0.1"));
  const uint8_t compatible[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1};
  CHECK(Address::FromV6(compatible).family == Family::kV6);
}

TEST_CASE("Prefixes are read and written") {
  struct Row {
    const char* text;
    const char* written;
  };
  for (const Row& row : std::vector<Row>{{"10.0.0.0/8", "10.0.0.0/8"},
                                         {"10.9.0.1", "10.9.0.1/32"},
                                         {"0.0.0.0/0", "0.0.0.0/0"},
                                         {"10.9.0.2/31", "10.9.0.2/31"},
                                         {"fd00::/8", "fd00::/8"},
                                         {"fd00::1", "fd00::1/128"},
                                         {"::/0", "::/0"},
                                         {"::ffff:10.9.0.1", "10.9.0.1/32"}}) {
    INFO(row.text);
    CHECK(P(row.text).ToString() == row.written);
  }
}

TEST_CASE("What is no prefix, or has host bits, gives nothing") {
  for (const char* text :
       {"", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ",
        "10.0.0.0/8/8", "10.0.0.0/x", "10.0.0.1/8", "10.9.0.1/31", "fd00::1/64", "fd00::/129",
        "fd00::/4294967304", "::ffff:10.0.0.0/104", "::ffff:10.0.0.0/8", "::ffff:0:0/96"}) {
    INFO(text);
    CHECK_FALSE(Prefix::Parse(text).has_value());
  }
}

TEST_CASE("Prefixes contain addresses of their own family only") {
  struct Row {
    const char* prefix;
    const char* address;
    bool inside;
  };
  const std::vector<Row> rows = {
      {"10.0.0.0/8", "10.255.255.255", true},
      {"10.0.0.0/8", "11.0.0.0", false},
      {"10.9.0.0/23", "10.9.1.255", true},
      {"10.9.0.0/23", "10.9.2.0", false},
      {"10.9.0.1", "10.9.0.1", true},
      {"10.9.0.1", "10.9.0.0", false},
      {"0.0.0.0/0", "192.0.2.1", true},
      {"0.0.0.0/0", "::", false},
      {"::/0", "fd00::1", true},
      {"::/0", "192.0.2.1", false},
      {"fd00:5::/63", "fd00:5:0:1::9", true},
      {"fd00:5::/63", "fd00:5:0:2::9", false},
  };
  for (const Row& row : rows) {
    INFO(row.prefix << " " << row.address);
    CHECK(P(row.prefix).Contains(A(row.address)) == row.inside);
  }
  CHECK_FALSE(P("0.0.0.0/0").Contains(Address{}));
  CHECK_FALSE(Prefix{}.Contains(Address{}));
  // Longer than the family has: nothing, rather than octets past the end.
  CHECK_FALSE(Prefix{A("10.9.0.1"), 40}.Contains(A("10.9.0.1")));
  CHECK_FALSE(Prefix{A("10.9.0.1"), 200}.Contains(A("10.9.0.1")));
  CHECK_FALSE(Prefix{A("fd00::1"), 200}.Contains(A("fd00::1")));
}

TEST_CASE("Prefixes overlap when one holds the other") {
  CHECK(P("10.0.0.0/8").Overlaps(P("10.9.0.0/16")));
  CHECK(P("10.9.0.0/16").Overlaps(P("10.0.0.0/8")));
  CHECK(P("0.0.0.0/0").Overlaps(P("192.0.2.1")));
  CHECK_FALSE(P("10.8.0.0/16").Overlaps(P("10.9.0.0/16")));
  CHECK_FALSE(P("0.0.0.0/0").Overlaps(P("::/0")));
  CHECK_FALSE(Prefix{}.Overlaps(Prefix{}));
}

TEST_CASE("Port ranges include both ends") {
  const PortRange range{6000, 6010};
  CHECK(range.Contains(6000));
  CHECK(range.Contains(6010));
  CHECK_FALSE(range.Contains(5999));
  CHECK_FALSE(range.Contains(6011));
}

TEST_CASE("Socket addresses as text") {
  CHECK(SocketAddress{A("10.9.0.1"), 80}.ToString() == "10.9.0.1:80");
  CHECK(SocketAddress{A("fd00::1"), 80}.ToString() == "[fd00::1]:80");
  CHECK(SocketAddress{}.ToString() == "*");
}

TEST_CASE("Socket addresses go over the wire and back") {
  for (const SocketAddress& address :
       {SocketAddress{A("10.9.0.1"), 80}, SocketAddress{A("fd00::1"), 65535},
        SocketAddress{A("0.0.0.0"), 0}, SocketAddress{}}) {
    CHECK(FromWire(ToWire(address)) == address);
  }
  const wire::Endpoint v4 = ToWire(SocketAddress{A("10.9.0.1"), 80});
  CHECK(v4.family == AF_INET);
  CHECK(v4.port == 80);
  CHECK(v4.address[0] == 10);
  CHECK(v4.address[4] == 0);
  CHECK(ToWire(SocketAddress{A("fd00::1"), 80}).family == AF_INET6);
  CHECK(ToWire(SocketAddress{}).family == 0);
}

TEST_CASE("A mapped wire endpoint is IPv4, an unknown family is none") {
  wire::Endpoint endpoint{};
  endpoint.family = AF_INET6;
  endpoint.port = 443;
  endpoint.address[10] = endpoint.address[11] = 0xff;
  endpoint.address[12] = 10;
  endpoint.address[15] = 1;
  CHECK(FromWire(endpoint) == SocketAddress{A("10.0.0.1"), 443});
  endpoint.family = AF_UNIX;
  CHECK(FromWire(endpoint) == SocketAddress{});
}

}  // namespace
}  // namespace latchkey
