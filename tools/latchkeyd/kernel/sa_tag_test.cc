#include "tools/latchkeyd/kernel/sa_tag.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <string>

#include "tools/latchkeyd/kernel/sa_derive.h"
#include "tools/latchkeyd/kernel/sa_install.h"
#include "tools/latchkeyd/kernel/xfrm_parse.h"

namespace latchkey::broker {
namespace {

using Octets = std::vector<uint8_t>;

constexpr uint32_t kMask = 0x7fff0000;

template <typename T>
void Add(Octets* message, uint16_t type, const T& value) {
  nlattr header{};
  header.nla_type = type;
  header.nla_len = static_cast<uint16_t>(NLA_HDRLEN + sizeof(value));
  const auto* head = reinterpret_cast<const uint8_t*>(&header);
  const auto* body = reinterpret_cast<const uint8_t*>(&value);
  message->insert(message->end(), head, head + sizeof(header));
  message->insert(message->end(), body, body + sizeof(value));
  message->resize(NLMSG_ALIGN(message->size()));
  const auto length = static_cast<uint32_t>(message->size());
  std::memcpy(message->data(), &length, sizeof(length));
}

// As the kernel would tell of one that has been in use.
Octets Told() {
  const SaSuite suite = *ParseSaSuite("aes-cbc:128/hmac-sha2-256");
  const Address source = *Address::Parse("10.9.0.2");
  const Address destination = *Address::Parse("10.9.0.1");
  const SaKeys keys = *DeriveSa(Octets(32, 0x5a), source, destination, 7, suite);
  Octets told = BuildNewSa(source, destination, 7, suite, keys);
  xfrm_usersa_info info;
  std::memcpy(&info, told.data() + NLMSG_HDRLEN, sizeof(info));
  info.curlft = {1000, 10, 1'700'000'000, 1'700'000'100};
  info.lft.hard_add_expires_seconds = 3600;
  std::memcpy(told.data() + NLMSG_HDRLEN, &info, sizeof(info));
  xfrm_encap_tmpl encap{};
  encap.encap_type = 2;
  encap.encap_sport = encap.encap_dport = 0x9411;
  Add(&told, XFRMA_ENCAP, encap);
  Add(&told, XFRMA_REPLAY_VAL, xfrm_replay_state{0, 10, 0x3ff});
  Add(&told, XFRMA_LASTUSED, uint64_t{1'700'000'200});
  return told;
}

std::map<int, Octets> Attributes(const Octets& message) {
  std::map<int, Octets> all;
  for (size_t at = NLMSG_HDRLEN + sizeof(xfrm_usersa_info); at < message.size();) {
    nlattr header;
    std::memcpy(&header, message.data() + at, sizeof(header));
    REQUIRE(header.nla_len >= NLA_HDRLEN);
    REQUIRE(at + header.nla_len <= message.size());
    all[header.nla_type] = Octets(message.data() + at + NLA_HDRLEN, &message[at] + header.nla_len);
    at += NLA_ALIGN(header.nla_len);
  }
  return all;
}

Octets Number(uint32_t value) {
  Octets octets(sizeof(value));
  std::memcpy(octets.data(), &value, sizeof(value));
  return octets;
}

TEST_CASE("What the kernel told is sent back whole, with the tag") {
  const Octets told = Told();
  const Result<Octets> request = BuildTagSa(told, 0x70000, kMask);
  REQUIRE(request);
  nlmsghdr header;
  std::memcpy(&header, request->data(), sizeof(header));
  CHECK(header.nlmsg_type == XFRM_MSG_UPDSA);
  CHECK(header.nlmsg_len == request->size());
  CHECK(std::equal(told.begin() + NLMSG_HDRLEN,
                   told.begin() + NLMSG_HDRLEN + sizeof(xfrm_usersa_info),
                   request->begin() + NLMSG_HDRLEN));
  std::map<int, Octets> got = Attributes(*request);
  CHECK(got[XFRMA_SET_MARK] == Number(0x70000));
  CHECK(got[XFRMA_SET_MARK_MASK] == Number(kMask));
  const xfrm_lifetime_cur used{1000, 10, 1'700'000'000, 1'700'000'100};
  REQUIRE(got[XFRMA_LTIME_VAL].size() == sizeof(used));
  CHECK(std::memcmp(got[XFRMA_LTIME_VAL].data(), &used, sizeof(used)) == 0);
  for (const int added : {XFRMA_SET_MARK, XFRMA_SET_MARK_MASK, XFRMA_LTIME_VAL}) got.erase(added);
  std::map<int, Octets> before = Attributes(told);
  before.erase(XFRMA_LASTUSED);
  CHECK(got == before);
  // The event that follows reads as the SA did, but for the mark.
  Sa expected = *ParseSa(told);
  expected.set_mark = 0x70000;
  expected.set_mask = kMask;
  CHECK(ParseSa(*request) == expected);
}

TEST_CASE("Bits outside the mask stay, those inside are the tag's") {
  Octets told = Told();
  Add(&told, XFRMA_SET_MARK, uint32_t{0x12345678});
  SECTION("as it masks them itself") {
    Add(&told, XFRMA_SET_MARK_MASK, uint32_t{0xffff00ff});
    const std::optional<Sa> sa = ParseSa(*BuildTagSa(told, 0x70000, kMask));
    REQUIRE(sa);
    CHECK(sa->set_mark == 0x00070078);
    CHECK(sa->set_mask == 0xffff00ff);
  }
  SECTION("and are taken away again") {
    Add(&told, XFRMA_SET_MARK_MASK, uint32_t{0xffff00ff});
    const std::optional<Sa> sa = ParseSa(*BuildTagSa(told, 0, 0xffff0000));
    REQUIRE(sa);
    CHECK(sa->set_mark == 0x78);
    CHECK(sa->set_mask == 0xffff00ff);
  }
}

TEST_CASE("Of a card's SA the card is not told again") {
  Octets told = Told();
  Add(&told, XFRMA_OFFLOAD_DEV, xfrm_user_offload{2, 0});
  CHECK_FALSE(Attributes(*BuildTagSa(told, 0x70000, kMask)).contains(XFRMA_OFFLOAD_DEV));
}

TEST_CASE("A malformed message is not sent back") {
  const Octets told = Told();
  for (size_t size = 0; size < told.size(); ++size) {
    CHECK_FALSE(BuildTagSa(std::span(told).first(size), 0x70000, kMask));
  }
}

TEST_CASE("An SA is asked for by what the kernel knows it by") {
  Sa sa = *ParseSa(Told());
  const Octets plain = BuildGetSa(sa);
  CHECK(plain.size() == NLMSG_HDRLEN + sizeof(xfrm_usersa_id));
  sa.mark = 5;
  sa.mark_mask = 7;
  const Octets marked = BuildGetSa(sa);
  REQUIRE(marked.size() == plain.size() + NLA_HDRLEN + sizeof(xfrm_mark));
  xfrm_usersa_id id;
  std::memcpy(&id, marked.data() + NLMSG_HDRLEN, sizeof(id));
  CHECK(ntohl(id.spi) == sa.key.spi);
  CHECK(id.proto == 50);
}

}  // namespace
}  // namespace latchkey::broker
