#include "tools/latchkeyd/kernel/fragment_ban.h"

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <poll.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

constexpr int kHeaderIncluded6 = 36;  // IPV6_HDRINCL

// Sends datagrams over loopback, whole or in fragments, and says what arrived.
class Wire {
 public:
  explicit Wire(int family, uint8_t protocol = IPPROTO_TCP)
      : family_(family),
        protocol_(protocol),
        send_(socket(family, SOCK_RAW, IPPROTO_RAW)),
        receive_(socket(family, SOCK_RAW, protocol)) {
    REQUIRE(send_);
    REQUIRE(receive_);
    if (family == AF_INET6) {
      const int yes = 1;
      REQUIRE(setsockopt(send_.get(), SOL_IPV6, kHeaderIncluded6, &yes, sizeof(yes)) == 0);
    }
  }

  // True when 64 octets in so many pieces came through from `from` to the loopback address.
  bool Passes(const std::string& from, int pieces) {
    static uint16_t id = 0;
    ++id;
    const std::string to = family_ == AF_INET ? "127.0.0.1" : "::1";
    for (int piece = 0; piece < pieces; ++piece) Send(from, to, id, piece, pieces);
    pollfd poller{receive_.get(), POLLIN, 0};
    if (poll(&poller, 1, 200) != 1) return false;
    char buffer[200];
    const ssize_t got = recv(receive_.get(), buffer, sizeof(buffer), 0);
    return got == (family_ == AF_INET ? 20 : 0) + 64;
  }

 private:
  void Send(const std::string& from, const std::string& to, uint16_t id, int piece, int pieces) {
    // IPv6 wants the whole of TCP's header in the first one.
    const size_t size = 64 / static_cast<size_t>(pieces);
    const size_t offset = size * static_cast<size_t>(piece);
    const bool more = piece + 1 < pieces;
    std::vector<uint8_t> octets;
    const auto append = [&octets](const void* data, size_t count) {
      const auto* begin = static_cast<const uint8_t*>(data);
      octets.insert(octets.end(), begin, begin + count);
    };
    if (family_ == AF_INET) {
      iphdr header{};
      header.version = 4;
      header.ihl = 5;
      header.ttl = 64;
      header.protocol = protocol_;
      header.id = htons(id);
      header.tot_len = htons(static_cast<uint16_t>(sizeof(header) + size));
      header.frag_off = htons(static_cast<uint16_t>(offset / 8 | (more ? IP_MF : 0)));
      std::memcpy(&header.saddr, Address::Parse(from)->octets.data(), 4);
      std::memcpy(&header.daddr, Address::Parse(to)->octets.data(), 4);
      append(&header, sizeof(header));
    } else {
      const size_t extra = pieces > 1 ? sizeof(ip6_frag) : 0;
      ip6_hdr header{};
      header.ip6_flow = htonl(6u << 28);
      header.ip6_hlim = 64;
      header.ip6_nxt = pieces > 1 ? uint8_t{IPPROTO_FRAGMENT} : protocol_;
      header.ip6_plen = htons(static_cast<uint16_t>(extra + size));
      std::memcpy(&header.ip6_src, Address::Parse(from)->octets.data(), 16);
      std::memcpy(&header.ip6_dst, Address::Parse(to)->octets.data(), 16);
      append(&header, sizeof(header));
      ip6_frag fragment{};
      fragment.ip6f_nxt = protocol_;
      fragment.ip6f_offlg = htons(static_cast<uint16_t>(offset | (more ? 1 : 0)));
      fragment.ip6f_ident = htonl(id);
      append(&fragment, extra);
    }
    const std::vector<uint8_t> body(size, 0x55);
    append(body.data(), body.size());
    sockaddr_storage address{};
    address.ss_family = static_cast<sa_family_t>(family_);
    void* where = family_ == AF_INET
                      ? static_cast<void*>(&reinterpret_cast<sockaddr_in*>(&address)->sin_addr)
                      : &reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr;
    std::memcpy(where, Address::Parse(to)->octets.data(), family_ == AF_INET ? 4 : 16);
    const socklen_t length = family_ == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    REQUIRE(sendto(send_.get(), octets.data(), octets.size(), 0,
                   reinterpret_cast<const sockaddr*>(&address),
                   length) == static_cast<ssize_t>(octets.size()));
  }

  const int family_;
  const uint8_t protocol_;
  UniqueFd send_;
  UniqueFd receive_;
};

FragmentBan Ban(const char* local, const char* remote, uint32_t reqid = 7) {
  return {*Prefix::Parse(local), *Prefix::Parse(remote), reqid};
}

void Set(FragmentBans& bans, const std::vector<FragmentBan>& wanted) {
  const Result<void> done = bans.Set(wanted);
  INFO((done ? std::string() : done.error().ToString()));
  REQUIRE(done);
}

TEST_CASE("TCP's fragments in clear between a tunnel's addresses are dropped, nothing else") {
  TestNetns netns;
  FragmentBans bans("latchkey-test", /*owned=*/false);
  Wire wire(AF_INET);
  REQUIRE(wire.Passes("127.0.9.1", 1));
  REQUIRE(wire.Passes("127.0.9.1", 2));
  Set(bans, {Ban("127.0.0.1", "127.0.9.0/24"), Ban("127.0.0.1", "127.0.9.0/24", 8),
             Ban("10.0.0.0/8", "0.0.0.0/0"), Ban("::2", "fd00::/8")});
  CHECK(bans.Stand());
  CHECK(wire.Passes("127.0.9.1", 1));
  CHECK_FALSE(wire.Passes("127.0.9.1", 2));
  CHECK_FALSE(wire.Passes("127.0.9.200", 4));
  CHECK(wire.Passes("127.0.8.1", 2));
  CHECK(Wire(AF_INET, IPPROTO_UDP).Passes("127.0.9.1", 2));
  // All at once something else; then nothing.
  Set(bans, {Ban("127.0.0.1", "127.0.8.0/24")});
  CHECK(bans.Stand());
  CHECK(wire.Passes("127.0.9.1", 2));
  CHECK_FALSE(wire.Passes("127.0.8.1", 2));
  Set(bans, {});
  CHECK(bans.Stand());
  CHECK(wire.Passes("127.0.8.1", 2));
}

TEST_CASE("IPv6: fragments of anything, since later ones can claim any protocol") {
  TestNetns netns;
  FragmentBans bans("latchkey-test", /*owned=*/false);
  Wire wire(AF_INET6);
  REQUIRE(wire.Passes("::1", 1));
  REQUIRE(wire.Passes("::1", 2));
  Set(bans, {Ban("::1", "::/64")});
  CHECK(bans.Stand());
  CHECK(wire.Passes("::1", 1));
  CHECK_FALSE(wire.Passes("::1", 2));
  CHECK_FALSE(Wire(AF_INET6, IPPROTO_UDP).Passes("::1", 2));
  CHECK(Wire(AF_INET6, IPPROTO_UDP).Passes("::1", 1));
  Set(bans, {});
  CHECK(wire.Passes("::1", 2));
}

TEST_CASE("bans outlive their maker, are taken over, and are missed when they are gone") {
  TestNetns netns;
  Wire wire(AF_INET);
  {
    FragmentBans first("latchkey-test", /*owned=*/false);
    Set(first, {Ban("127.0.0.1", "127.0.9.1")});
  }
  CHECK_FALSE(wire.Passes("127.0.9.1", 2));
  FragmentBans next("latchkey-test", /*owned=*/false);
  Set(next, {Ban("127.0.0.1", "127.0.9.1"), Ban("127.0.0.1", "127.0.9.2")});
  CHECK(next.Stand());
  // Another changes the table: it is noticed.
  FragmentBans other("latchkey-test", /*owned=*/false);
  Set(other, {Ban("127.0.0.1", "127.0.9.1")});
  CHECK_FALSE(next.Stand());
  Set(other, {});
  CHECK_FALSE(next.Stand());
}

TEST_CASE("an owned table goes with its owner, and two of them do not disturb each other") {
  TestNetns netns;
  Wire wire(AF_INET);
  FragmentBans mine("latchkey-test", /*owned=*/false);
  Set(mine, {Ban("127.0.0.1", "127.0.9.1")});
  {
    FragmentBans theirs("latchkey-other", /*owned=*/true);
    Set(theirs, {Ban("127.0.0.1", "127.0.9.2")});
    Set(theirs, {Ban("127.0.0.1", "127.0.9.2"), Ban("127.0.0.1", "127.0.9.3")});
    CHECK_FALSE(wire.Passes("127.0.9.2", 2));
    FragmentBans thief("latchkey-other", /*owned=*/false);
    CHECK_FALSE(thief.Set({}));
    CHECK(theirs.Stand());
  }
  CHECK(wire.Passes("127.0.9.2", 2));
  CHECK_FALSE(wire.Passes("127.0.9.1", 2));
}

}  // namespace
}  // namespace latchkey::broker
