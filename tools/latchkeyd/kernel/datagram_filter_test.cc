#include "tools/latchkeyd/kernel/datagram_filter.h"

#include <linux/filter.h>
#include <netinet/udp.h>
#include <poll.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>

#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

using Need = DatagramRegion::Need;

constexpr uint32_t kMask = 0x7fff0000;
constexpr uint32_t kTag = 0x00070000;
constexpr uint32_t kOther = 0x00090000;

DatagramRegion Region(const std::string& prefix, Need need, uint16_t port = 0) {
  return {Prefix::Parse(prefix).value(), port, need};
}

SocketAddress At(const std::string& address, uint16_t port = 0) {
  return {Address::Parse(address).value(), port};
}

struct Case {
  TestNetns netns;
  DatagramFilter filter{{kMask, {}}};

  Case() { REQUIRE(filter.Complaint() == ""); }
  void Filter(const TestUdp& socket, const std::vector<DatagramRegion>& regions) {
    Result<void> done = filter.Filter(socket.fd(), socket.cookie(), regions);
    INFO((done ? "" : done.error().ToString()));
    REQUIRE(done);
  }
  void Admit(const TestUdp& socket, const std::string& address, uint32_t tag, uint16_t port = 0) {
    REQUIRE(filter.Admit({socket.cookie(), At(address, port), tag}));
  }
};

TEST_CASE("What no region covers is dropped and counted, and wakes nobody") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  peer.Send(us, "127.0.0.1", "before");
  CHECK(us.Take() == "before");
  c.Filter(us, {});
  peer.Send(us, "127.0.0.1", "after");
  peer.Send(us, "127.0.0.1", "tagged", kTag);
  pollfd wait{us.fd(), POLLIN, 0};
  CHECK(poll(&wait, 1, 0) == 0);
  CHECK(us.Take() == "-");
  CHECK(c.filter.Dropped(us.cookie()) == 2);
  CHECK(c.filter.Dropped(peer.cookie()) == 0);
}

TEST_CASE("What GRO has merged comes in without a tag alone") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {Region("127.0.0.0/8", Need::kPass)});
  c.Admit(us, "127.0.0.1", kTag);
  const int one = 1, size = 4;
  REQUIRE(setsockopt(us.fd(), SOL_UDP, UDP_GRO, &one, sizeof(one)) == 0);
  REQUIRE(setsockopt(peer.fd(), SOL_UDP, UDP_SEGMENT, &size, sizeof(size)) == 0);
  peer.Send(us, "127.0.0.1", "one.two.");
  CHECK(us.Take() == "one.two.");
  peer.Send(us, "127.0.0.1", "one.two.", kTag);
  CHECK(us.Take() == "-");
  CHECK(c.filter.Dropped(us.cookie()) == 1);
}

TEST_CASE("A region passes what it is for, the longest prefix counts, then the port") {
  Case c;
  const TestUdp us("0.0.0.0");
  c.Filter(us, {Region("127.0.0.0/8", Need::kPass), Region("127.0.1.0/24", Need::kDrop),
                Region("127.0.1.7", Need::kPass), Region("127.0.2.0/24", Need::kTag),
                Region("127.0.1.7", Need::kDrop, 5000), Region("127.0.1.8", Need::kPass, 5000)});
  const auto comes = [&](const std::string& from, uint16_t port = 0, uint32_t mark = 0) {
    TestUdp(from, false, port).Send(us, "127.0.0.1", "x", mark);
    return us.Take() == "x";
  };
  CHECK(comes("127.0.0.1"));
  CHECK(comes("127.0.0.1", 0, kTag));
  CHECK_FALSE(comes("127.0.1.1"));
  CHECK_FALSE(comes("127.0.1.1", 0, kTag));
  CHECK(comes("127.0.1.7"));
  CHECK_FALSE(comes("127.0.1.7", 5000));
  CHECK_FALSE(comes("127.0.1.8", 5001));
  CHECK(comes("127.0.1.8", 5000));
  CHECK_FALSE(comes("127.0.2.1"));
  CHECK_FALSE(comes("127.0.2.1", 0, kTag));
}

TEST_CASE("A region lets in all but what comes from some ports, where only admissions do") {
  Case c;
  const TestUdp us("0.0.0.0");
  DatagramRegion all = Region("127.0.0.0/8", Need::kPass);
  all.but = {{53, 53}, {5000, 5010}, {0, 9}, {65'535, 65'535}};
  DatagramRegion own = Region("127.0.2.0/24", Need::kPass);
  own.but = {{5000, 5000}};
  own.same_host = true;
  c.Filter(us, {all, own, Region("127.0.1.0/24", Need::kPass),
                Region("127.0.0.5", Need::kPass, 5005), Region("127.0.0.6", Need::kDrop, 6000)});
  const auto comes = [&](const std::string& from, uint16_t port, uint32_t mark = 0) {
    TestUdp(from, false, port).Send(us, "127.0.0.1", "x", mark);
    return us.Take() == "x";
  };
  for (const uint16_t port : {53, 5000, 5005, 5010, 9, 65'535}) {
    CHECK_FALSE(comes("127.0.0.1", port));
    CHECK_FALSE(comes("127.0.0.1", port, kTag));
  }
  for (const uint16_t port : {10, 52, 54, 4999, 5011, 65'534}) CHECK(comes("127.0.0.1", port));
  // A longer prefix counts, and before it one with the port; loopback brings what it may.
  CHECK(comes("127.0.1.1", 5005));
  CHECK(comes("127.0.0.5", 5005));
  CHECK_FALSE(comes("127.0.0.5", 5006));
  CHECK_FALSE(comes("127.0.0.6", 6000));
  CHECK(comes("127.0.2.1", 5000));
  c.Admit(us, "127.0.0.1", kTag);
  c.Admit(us, "127.0.0.2", kTag, 5000);
  CHECK(comes("127.0.0.1", 5005, kTag));
  CHECK_FALSE(comes("127.0.0.1", 5005));
  CHECK_FALSE(comes("127.0.0.1", 5005, kOther));
  CHECK(comes("127.0.0.2", 5000, kTag));
  CHECK_FALSE(comes("127.0.0.2", 5001, kTag));
  // As many as there may be; each counts.
  all.but.clear();
  for (uint16_t i = 0; i < kMostBut; ++i) {
    const uint16_t port = 5000 + i * 2;
    all.but.push_back({port, port});
  }
  c.Filter(us, {all});
  for (uint16_t i = 0; i < kMostBut; ++i) {
    CHECK_FALSE(comes("127.0.0.3", 5000 + i * 2));
    CHECK(comes("127.0.0.3", 5001 + i * 2));
  }
}

TEST_CASE("An admission lets in what bears its tag, from its address and port alone") {
  Case c;
  const TestUdp us("0.0.0.0");
  c.Filter(us, {Region("0.0.0.0/0", Need::kTag)});
  c.Admit(us, "127.0.0.1", kTag);
  c.Admit(us, "127.0.0.2", kTag, 5000);
  const auto comes = [&](const std::string& from, uint16_t port, uint32_t mark) {
    TestUdp(from, false, port).Send(us, "127.0.0.1", "x", mark);
    return us.Take() == "x";
  };
  CHECK(comes("127.0.0.1", 0, kTag));
  // What else is in the mark is not the tag's.
  CHECK(comes("127.0.0.1", 0, kTag | 0x80000001));
  CHECK_FALSE(comes("127.0.0.1", 0, 0));
  CHECK_FALSE(comes("127.0.0.1", 0, kOther));
  CHECK_FALSE(comes("127.0.0.1", 0, kTag | kOther));
  CHECK_FALSE(comes("127.0.0.2", 0, kTag));
  CHECK(comes("127.0.0.2", 5000, kTag));
  CHECK_FALSE(comes("127.0.0.3", 0, kTag));
  c.filter.Dismiss({us.cookie(), At("127.0.0.1"), kTag});
  c.filter.Dismiss({us.cookie(), At("127.0.0.1"), kTag});
  CHECK_FALSE(comes("127.0.0.1", 0, kTag));
  CHECK(comes("127.0.0.2", 5000, kTag));
}

TEST_CASE("Admissions and regions are one socket's") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp them("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {Region("0.0.0.0/0", Need::kTag)});
  c.Filter(them, {Region("0.0.0.0/0", Need::kTag), Region("127.0.0.1", Need::kPass, peer.port())});
  c.Admit(us, "127.0.0.1", kTag);
  peer.Send(us, "127.0.0.1", "clear");
  CHECK(us.Take() == "-");
  peer.Send(them, "127.0.0.1", "clear");
  CHECK(them.Take() == "clear");
  c.filter.Forget(them.cookie());
  peer.Send(them, "127.0.0.1", "forgotten");
  CHECK(them.Take() == "-");
  peer.Send(us, "127.0.0.1", "tagged", kTag);
  CHECK(us.Take() == "tagged");
}

TEST_CASE("What the loopback device brings comes in where a region says so, tagged or not") {
  Case c;
  const TestUdp us("::", /*v6_socket=*/true);
  const auto own = [](const std::string& prefix, Need need, uint16_t port = 0) {
    DatagramRegion region = Region(prefix, need, port);
    region.same_host = true;
    return region;
  };
  c.Filter(us, {own("127.0.1.0/24", Need::kTag), own("127.0.2.0/24", Need::kDrop),
                own("fd00:7::/32", Need::kTag), Region("127.0.3.0/24", Need::kTag),
                own("127.0.3.1", Need::kTag, 5000), own("127.0.4.0/24", Need::kPass)});
  const auto comes = [&](const std::string& from, uint16_t port = 0) {
    const bool v6 = from.find(':') != std::string::npos;
    TestUdp(from, false, port).Send(us, v6 ? "::1" : "127.0.0.1", "x");
    return us.Take() == "x";
  };
  CHECK(comes("127.0.1.1"));
  CHECK(comes("127.0.2.1"));
  CHECK(comes("fd00:7::1"));
  CHECK_FALSE(comes("127.0.3.1"));
  CHECK(comes("127.0.3.1", 5000));
  CHECK(comes("127.0.4.1"));
  c.Filter(us, {Region("127.0.1.0/24", Need::kTag)});
  CHECK_FALSE(comes("127.0.1.1"));
}

TEST_CASE("IPv6, and IPv4 on a socket of both, each by its own addresses") {
  Case c;
  const TestUdp us("::", /*v6_socket=*/true);
  c.Filter(us, {Region("::1", Need::kPass), Region("fd00:7::/32", Need::kTag),
                Region("fd00:7:1::/48", Need::kPass), Region("127.0.0.0/8", Need::kTag),
                Region("127.0.0.9", Need::kPass)});
  c.Admit(us, "fd00:7::1", kTag);
  c.Admit(us, "127.0.0.1", kTag);
  const auto comes = [&](const std::string& from, uint32_t mark = 0) {
    const bool v6 = from.find(':') != std::string::npos;
    TestUdp(from).Send(us, v6 ? "::1" : "127.0.0.1", "x", mark);
    return us.Take() == "x";
  };
  CHECK(comes("::1"));
  CHECK_FALSE(comes("fd00:7::1"));
  CHECK(comes("fd00:7::1", kTag));
  CHECK_FALSE(comes("fd00:7::2", kTag));
  CHECK(comes("fd00:7:1::2"));
  CHECK_FALSE(comes("fd00:8::1"));
  CHECK_FALSE(comes("127.0.0.1"));
  CHECK(comes("127.0.0.1", kTag));
  CHECK(comes("127.0.0.9"));
}

TEST_CASE("Large and empty datagrams come in whole") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {Region("0.0.0.0/0", Need::kPass)});
  peer.Send(us, "127.0.0.1", "");
  CHECK(us.Take().empty());
  peer.Send(us, "127.0.0.1", std::string(60'000, 'x'));
  std::string text(65'536, ' ');
  CHECK(recv(us.fd(), text.data(), text.size(), MSG_DONTWAIT) == 60'000);
}

TEST_CASE("Regions change on a socket that has the filter; what it dropped goes on being counted") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {Region("127.0.0.0/8", Need::kDrop), Region("127.0.0.1", Need::kDrop, peer.port())});
  peer.Send(us, "127.0.0.1", "one");
  c.Filter(us, {Region("0.0.0.0/0", Need::kPass)});
  peer.Send(us, "127.0.0.1", "two");
  CHECK(us.Take() == "two");
  c.Filter(us, {});
  peer.Send(us, "127.0.0.1", "three");
  CHECK(us.Take() == "-");
  CHECK(c.filter.Dropped(us.cookie()) == 2);
}

TEST_CASE("A forgotten socket takes in nothing, until it is given regions again") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {Region("0.0.0.0/0", Need::kPass)});
  c.Admit(us, "127.0.0.1", kTag);
  CHECK(c.filter.Held() == std::vector<uint64_t>{us.cookie()});
  c.filter.Forget(us.cookie());
  CHECK(c.filter.Held().empty());
  peer.Send(us, "127.0.0.1", "clear");
  peer.Send(us, "127.0.0.1", "tagged", kTag);
  CHECK(us.Take() == "-");
  c.Filter(us, {Region("0.0.0.0/0", Need::kTag)});
  peer.Send(us, "127.0.0.1", "tagged", kTag);
  CHECK(us.Take() == "-");
}

TEST_CASE("The program cannot take the filter off, nor put one of its own on") {
  Case c;
  const TestUdp us("0.0.0.0");
  c.Filter(us, {});
  const int off = 0;
  CHECK(setsockopt(us.fd(), SOL_SOCKET, SO_DETACH_FILTER, &off, sizeof(off)) != 0);
  CHECK(setsockopt(us.fd(), SOL_SOCKET, SO_LOCK_FILTER, &off, sizeof(off)) != 0);
  sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, ~0u)};
  const sock_fprog program{1, all};
  CHECK(setsockopt(us.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0);
}

TEST_CASE("A filter that the program has is not taken off: unsupported") {
  Case c;
  const TestUdp us("0.0.0.0");
  sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, ~0u)};
  const sock_fprog program{1, all};
  REQUIRE(setsockopt(us.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0);
  Result<void> done = c.filter.Filter(us.fd(), us.cookie(), {});
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kUnsupported);
  CHECK(c.filter.Held().empty());
  const int yes = 1;
  REQUIRE(setsockopt(us.fd(), SOL_SOCKET, SO_LOCK_FILTER, &yes, sizeof(yes)) == 0);
  done = c.filter.Filter(us.fd(), us.cookie(), {});
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kUnsupported);
  // Where there is none, but none can be put on either.
  const TestUdp locked("0.0.0.0");
  REQUIRE(setsockopt(locked.fd(), SOL_SOCKET, SO_LOCK_FILTER, &yes, sizeof(yes)) == 0);
  done = c.filter.Filter(locked.fd(), locked.cookie(), {});
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kUnsupported);
}

TEST_CASE("A filter of another broker's maps is not taken for ours") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {});
  DatagramFilter other({kMask, {}});
  const Result<void> done = other.Filter(us.fd(), us.cookie(), {Region("0.0.0.0/0", Need::kPass)});
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kUnsupported);
  CHECK(other.Held().empty());
  peer.Send(us, "127.0.0.1", "x");
  CHECK(us.Take() == "-");
}

TEST_CASE("A filter outlives its broker") {
  const TestNetns netns;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  {
    DatagramFilter filter({kMask, {}});
    REQUIRE(filter.Filter(us.fd(), us.cookie(), {Region("127.0.0.0/8", Need::kTag)}));
    REQUIRE(filter.Admit({us.cookie(), At("127.0.0.1"), kTag}));
  }
  peer.Send(us, "127.0.0.1", "clear");
  CHECK(us.Take() == "-");
  peer.Send(us, "127.0.0.1", "tagged", kTag);
  CHECK(us.Take() == "tagged");
}

TEST_CASE("What makes no sense is refused") {
  Case c;
  const TestUdp us("0.0.0.0");
  const auto reason = [](const Result<void>& done) {
    REQUIRE_FALSE(done);
    return done.error().reason;
  };
  CHECK(reason(c.filter.Filter(us.fd(), 0, {})) == Reason::kBadRequest);
  CHECK(reason(c.filter.Filter(us.fd(), us.cookie(), {DatagramRegion{}})) == Reason::kBadRequest);
  CHECK(reason(c.filter.Filter(us.fd(), us.cookie(), {Region("127.0.0.0/8", Need::kPass, 53)})) ==
        Reason::kBadRequest);
  const auto but = [&](DatagramRegion region, size_t count, PortRange ports = {53, 53}) {
    region.but.resize(count, ports);
    return reason(c.filter.Filter(us.fd(), us.cookie(), {region}));
  };
  CHECK(but(Region("127.0.0.0/8", Need::kPass), kMostBut + 1) == Reason::kLimit);
  CHECK(but(Region("127.0.0.0/8", Need::kPass), 1, {54, 53}) == Reason::kBadRequest);
  CHECK(but(Region("127.0.0.0/8", Need::kTag), 1) == Reason::kBadRequest);
  CHECK(but(Region("127.0.0.0/8", Need::kDrop), 1) == Reason::kBadRequest);
  CHECK(but(Region("127.0.0.1", Need::kPass, 53), 1) == Reason::kBadRequest);
  CHECK(reason(c.filter.Admit({us.cookie(), At("127.0.0.1"), 0})) == Reason::kBadRequest);
  CHECK(reason(c.filter.Admit({us.cookie(), At("127.0.0.1"), 0x80000000})) == Reason::kBadRequest);
  CHECK(reason(c.filter.Admit({us.cookie(), {}, kTag})) == Reason::kBadRequest);
  CHECK(reason(c.filter.Filter(-1, us.cookie(), {})) == Reason::kKernelRefused);
  CHECK(c.filter.Held().empty());
}

TEST_CASE("What there is no room for is refused, and leaves nothing behind") {
  Case c;
  const TestUdp us("0.0.0.0");
  const TestUdp peer("127.0.0.1");
  c.Filter(us, {Region("127.0.0.1", Need::kPass, peer.port())});
  std::vector<DatagramRegion> many;
  for (uint32_t i = 0; i < 70'000; ++i) {
    const uint32_t base = htonl(0x0a000000 + i);
    many.push_back({{Address::FromV4(&base), 32}, 0, Need::kDrop});
  }
  Result<void> done = c.filter.Filter(us.fd(), us.cookie(), many);
  REQUIRE_FALSE(done);
  CHECK(done.error().reason == Reason::kLimit);
  peer.Send(us, "127.0.0.1", "as before");
  CHECK(us.Take() == "as before");
  many.resize(60'000);
  CHECK(c.filter.Filter(us.fd(), us.cookie(), many));
  // Nor do regions that were.
  CHECK(c.filter.Filter(us.fd(), us.cookie(), {}));
  CHECK(c.filter.Filter(us.fd(), us.cookie(), many));
  c.filter.Forget(us.cookie());
  CHECK(c.filter.Filter(us.fd(), us.cookie(), many));
}

}  // namespace
}  // namespace latchkey::broker
