#include "tools/latchkeyd/kernel/xfrm_build.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "tools/latchkeyd/kernel/xfrm_parse.h"

namespace latchkey::broker {
namespace {

Guard MakeGuard(bool out, Guard::Action action, uint32_t reqid, const char* source) {
  Guard guard;
  guard.out = out;
  guard.action = action;
  guard.reqid = reqid;
  guard.priority = 3;
  guard.selector.source = *Prefix::Parse(source);
  guard.selector.family = guard.selector.source.base.family;
  guard.selector.destination = Prefix{Address::AnyOf(guard.selector.family), 0};
  return guard;
}

xfrm_userpolicy_info InfoOf(const Octets& value) {
  xfrm_userpolicy_info info;
  REQUIRE(value.size() >= sizeof(info));
  std::memcpy(&info, value.data(), sizeof(info));
  return info;
}

xfrm_user_tmpl TemplateOf(const Octets& value) {
  xfrm_user_tmpl tmpl;
  REQUIRE(value.size() == sizeof(xfrm_userpolicy_info) + sizeof(tmpl));
  std::memcpy(&tmpl, value.data() + sizeof(xfrm_userpolicy_info), sizeof(tmpl));
  return tmpl;
}

TEST_CASE("A guard's request reads back as the entry it makes") {
  Guard guard = MakeGuard(true, Guard::Action::kEsp, 7, "fd00:1::/64");
  guard.mark = 0x80000000;
  guard.selector.protocol = kProtocolTcp;
  guard.selector.source_port = 443;
  guard.selector.source_mask = 0xffff;
  const Result<Octets> request = BuildAddGuard(guard);
  REQUIRE(request);
  const std::optional<SpdEntry> entry = ParseSpdEntry(*request);
  REQUIRE(entry);
  CHECK(entry->selector == guard.selector);
  CHECK(entry->dir == XFRM_POLICY_OUT);
  CHECK(entry->priority == 3);
  CHECK(entry->mark == 0x80000000);
  CHECK(entry->mark_mask == 0x80000000);
  CHECK_FALSE(entry->block);
  CHECK_FALSE(entry->bare);
  CHECK(entry->protocol == SaProtocol::kEsp);
  CHECK(entry->mode == Mode::kTransport);
  CHECK(entry->reqid == 7);
}

TEST_CASE("A guard's mark names bits that are set and bits that are not") {
  Guard guard = MakeGuard(false, Guard::Action::kEsp, 7, "10.9.0.2/32");
  guard.priority = 0xffffffff;
  guard.mark = 0x00050000;
  guard.unset = 0x7ffa0000;
  const Result<Octets> request = BuildAddGuard(guard);
  REQUIRE(request);
  const std::optional<SpdEntry> entry = ParseSpdEntry(*request);
  REQUIRE(entry);
  CHECK(entry->dir == XFRM_POLICY_IN);
  CHECK(entry->priority == 0xffffffff);
  CHECK(entry->mark == 0x00050000);
  CHECK(entry->mark_mask == 0x7fff0000);
  CHECK(entry->reqid == 7);
  const Result<Octets> gone = BuildDeleteGuard(guard);
  REQUIRE(gone);
  xfrm_mark mark{};
  std::memcpy(&mark, gone->data() + gone->size() - sizeof(mark), sizeof(mark));
  CHECK(mark.v == 0x00050000);
  CHECK(mark.m == 0x7fff0000);
  guard.unset |= guard.mark;
  CHECK_FALSE(BuildAddGuard(guard));
  guard.mark = 0;
  CHECK_FALSE(BuildAddGuard(guard));
}

TEST_CASE("What a marked entry asked for is named by its mark") {
  const Address local = *Address::Parse("10.0.0.1");
  const Address remote = *Address::Parse("10.0.0.2");
  const SaKey key{remote, 0x100, SaProtocol::kEsp};
  const auto mark_of = [](const Octets& request) {
    const size_t size = sizeof(nlattr) + sizeof(xfrm_mark);
    nlattr head{};
    xfrm_mark mark{};
    std::memcpy(&head, request.data() + request.size() - size, sizeof(head));
    std::memcpy(&mark, request.data() + request.size() - sizeof(mark), sizeof(mark));
    CHECK(head.nla_type == XFRMA_MARK);
    CHECK(mark.m == mark.v);
    return mark.v;
  };
  for (const Mode mode : {Mode::kTransport, Mode::kTunnel}) {
    const Octets begun = BuildAllocSpi(local, remote, SaProtocol::kEsp, mode, 7, 0x80000000);
    CHECK(mark_of(begun) == 0x80000000);
    xfrm_userspi_info asked{};
    std::memcpy(&asked, begun.data() + sizeof(nlmsghdr), sizeof(asked));
    CHECK(asked.info.mode == (mode == Mode::kTunnel ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT));
  }
  CHECK(mark_of(BuildDeleteSa(key, 0x80000000)) == 0x80000000);
  CHECK(BuildDeleteSa(key, 0).size() == sizeof(nlmsghdr) + sizeof(xfrm_usersa_id));
}

TEST_CASE("Block and allow guards have no template; without a mark there is no attribute") {
  const Result<Octets> block =
      BuildAddGuard(MakeGuard(false, Guard::Action::kBlock, 0, "10.0.0.0/8"));
  const Result<Octets> allow =
      BuildAddGuard(MakeGuard(false, Guard::Action::kAllow, 0, "10.0.0.0/8"));
  REQUIRE(block);
  REQUIRE(allow);
  CHECK(block->size() == sizeof(nlmsghdr) + sizeof(xfrm_userpolicy_info));
  CHECK(ParseSpdEntry(*block)->block);
  CHECK(ParseSpdEntry(*block)->dir == XFRM_POLICY_IN);
  CHECK(ParseSpdEntry(*allow)->bare);
}

TEST_CASE("A guard that would protect nothing is not built") {
  const Guard good = MakeGuard(true, Guard::Action::kEsp, 7, "10.0.0.0/8");
  CHECK(BuildAddGuard(good));
  Guard guard = good;
  guard.reqid = 0;
  CHECK_FALSE(BuildAddGuard(guard));
  guard.out = false;  // there 0 means any
  CHECK(BuildAddGuard(guard));
  guard = good;
  guard.selector.family = Family::kV6;
  CHECK_FALSE(BuildAddGuard(guard));
  guard.selector.family = Family::kNone;
  CHECK_FALSE(BuildAddGuard(guard));
  CHECK_FALSE(BuildDeleteGuard(guard));
}

TEST_CASE("A guard is deleted by direction, selector and mark") {
  Guard guard = MakeGuard(true, Guard::Action::kBlock, 0, "10.9.0.0/16");
  guard.mark = 0x40000000;
  const Result<Octets> request = BuildDeleteGuard(guard);
  REQUIRE(request);
  nlmsghdr header;
  xfrm_userpolicy_id id;
  nlattr attribute;
  xfrm_mark mark;
  const size_t expected = sizeof(header) + sizeof(id) + sizeof(attribute) + sizeof(mark);
  REQUIRE(request->size() == expected);
  std::memcpy(&header, request->data(), sizeof(header));
  std::memcpy(&id, request->data() + sizeof(header), sizeof(id));
  std::memcpy(&attribute, request->data() + sizeof(header) + sizeof(id), sizeof(attribute));
  std::memcpy(&mark, request->data() + expected - sizeof(mark), sizeof(mark));
  CHECK(header.nlmsg_type == XFRM_MSG_DELPOLICY);
  CHECK(header.nlmsg_len == expected);
  CHECK(id.dir == XFRM_POLICY_OUT);
  CHECK(id.index == 0);
  CHECK(id.sel.family == AF_INET);
  CHECK(id.sel.prefixlen_s == 16);
  CHECK(ntohl(id.sel.saddr.a4) == 0x0a090000);
  CHECK(attribute.nla_type == XFRMA_MARK);
  CHECK(mark.v == 0x40000000);
  CHECK(mark.m == 0x40000000);
}

TEST_CASE("A pin demands ESP under the reqid both ways, for any flow of its family") {
  for (const Family family : {Family::kV4, Family::kV6}) {
    SocketPolicy policy;
    policy.kind = SocketPolicy::Kind::kProtect;
    policy.family = family;
    policy.reqid = 42;
    policy.spi_in = 0x1001;
    policy.spi_out = 0x1002;
    const Result<SocketPolicyValues> values = BuildSocketPolicy(policy);
    REQUIRE(values);
    REQUIRE(values->in);
    REQUIRE(values->out);
    CHECK_FALSE(values->clear);
    for (const bool out : {false, true}) {
      const Octets& value = out ? *values->out : *values->in;
      const xfrm_userpolicy_info info = InfoOf(value);
      const xfrm_user_tmpl tmpl = TemplateOf(value);
      CHECK(info.dir == (out ? XFRM_POLICY_OUT : XFRM_POLICY_IN));
      CHECK(info.action == XFRM_POLICY_ALLOW);
      CHECK(info.sel.family == (family == Family::kV4 ? AF_INET : AF_INET6));
      CHECK(tmpl.family == info.sel.family);
      CHECK(info.sel.prefixlen_d == 0);
      CHECK(info.sel.prefixlen_s == 0);
      CHECK(info.sel.proto == 0);
      CHECK(tmpl.id.proto == IPPROTO_ESP);
      CHECK(ntohl(tmpl.id.spi) == (out ? 0x1002u : 0x1001u));
      CHECK(tmpl.reqid == 42);
      CHECK(tmpl.mode == XFRM_MODE_TRANSPORT);
      CHECK(tmpl.optional == 0);
      CHECK(tmpl.aalgos == ~0u);
      CHECK(tmpl.ealgos == ~0u);
      CHECK(tmpl.calgos == ~0u);
    }
  }
}

TEST_CASE("In tunnel mode a template names the tunnel's ends") {
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  policy.family = Family::kV6;
  policy.mode = Mode::kTunnel;
  policy.reqid = 42;
  CHECK(BuildSocketPolicy(policy).error().reason == Reason::kBadRequest);  // whereto?
  policy.ends = {*Address::Parse("10.9.0.1"), *Address::Parse("10.9.0.2")};
  const Result<SocketPolicyValues> values = BuildSocketPolicy(policy);
  REQUIRE(values);
  for (const bool out : {false, true}) {
    const xfrm_userpolicy_info info = InfoOf(out ? *values->out : *values->in);
    const xfrm_user_tmpl tmpl = TemplateOf(out ? *values->out : *values->in);
    CHECK(info.sel.family == AF_INET6);
    CHECK(tmpl.family == AF_INET);
    CHECK(tmpl.mode == XFRM_MODE_TUNNEL);
    CHECK(ntohl(tmpl.saddr.a4) == (out ? 0x0a090001u : 0x0a090002u));
    CHECK(ntohl(tmpl.id.daddr.a4) == (out ? 0x0a090002u : 0x0a090001u));
  }
  policy.kind = SocketPolicy::Kind::kRequireIn;
  policy.ends = {};
  const Result<SocketPolicyValues> any = BuildSocketPolicy(policy);
  REQUIRE(any);
  CHECK(TemplateOf(*any->in).family == AF_INET6);
  CHECK(TemplateOf(*any->in).mode == XFRM_MODE_TUNNEL);
  policy.mode = Mode::kBeet;
  CHECK(BuildSocketPolicy(policy).error().reason == Reason::kUnsupported);
}

TEST_CASE("What lets a socket go in clear is of one flow") {
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kAllow;
  CHECK(BuildSocketPolicy(policy).error().reason == Reason::kBadRequest);
  policy.flow = {Direction::kIn,
                 kProtocolUdp,
                 {*Address::Parse("10.9.0.1"), 9000},
                 {*Address::Parse("10.9.0.3"), 53}};
  const Result<SocketPolicyValues> values = BuildSocketPolicy(policy);
  REQUIRE(values);
  for (const bool out : {false, true}) {
    const Octets& value = out ? *values->out : *values->in;
    CHECK(value.size() == sizeof(xfrm_userpolicy_info));
    const xfrm_selector sel = InfoOf(value).sel;
    CHECK(InfoOf(value).action == XFRM_POLICY_ALLOW);
    CHECK(sel.family == AF_INET);
    CHECK(sel.proto == IPPROTO_UDP);
    CHECK(ntohl((out ? sel.daddr : sel.saddr).a4) == 0x0a090003u);
    CHECK((out ? sel.prefixlen_d : sel.prefixlen_s) == 32);
    CHECK((out ? sel.prefixlen_s : sel.prefixlen_d) == 0);
    CHECK(ntohs(out ? sel.dport : sel.sport) == 53);
    CHECK((out ? sel.dport_mask : sel.sport_mask) == 0xffff);
    CHECK((out ? sel.sport_mask : sel.dport_mask) == 0);
  }
  policy.family = Family::kV6;
  CHECK(BuildSocketPolicy(policy).error().reason == Reason::kBadRequest);
}

TEST_CASE("A tunnel's guards read back as the entries they make") {
  Guard guard = MakeGuard(true, Guard::Action::kEsp, 7, "192.168.1.0/24");
  guard.mode = Mode::kTunnel;
  CHECK_FALSE(BuildAddGuard(guard));
  guard.ends = {*Address::Parse("fd00::1"), *Address::Parse("fd00::2")};
  const std::optional<SpdEntry> out = ParseSpdEntry(*BuildAddGuard(guard));
  REQUIRE(out);
  CHECK(out->mode == Mode::kTunnel);
  CHECK(out->tunnel_source == guard.ends.local);
  CHECK(out->tunnel_destination == guard.ends.remote);
  guard.out = false;
  CHECK(ParseSpdEntry(*BuildAddGuard(guard))->tunnel_source == guard.ends.remote);
  guard.ends = {};
  CHECK(ParseSpdEntry(*BuildAddGuard(guard))->tunnel_source == Address{});
  guard.ends.remote = *Address::Parse("fd00::2");
  CHECK_FALSE(BuildAddGuard(guard));
}

TEST_CASE("The other kinds of socket policy") {
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kRequireIn;
  Result<SocketPolicyValues> values = BuildSocketPolicy(policy);
  REQUIRE(values);
  REQUIRE(values->in);
  CHECK_FALSE(values->out);
  CHECK(TemplateOf(*values->in).reqid == 0);

  policy.kind = SocketPolicy::Kind::kBlock;
  values = BuildSocketPolicy(policy);
  REQUIRE(values);
  for (const std::optional<Octets>& value : {values->in, values->out}) {
    REQUIRE(value);
    CHECK(value->size() == sizeof(xfrm_userpolicy_info));
    CHECK(InfoOf(*value).action == XFRM_POLICY_BLOCK);
  }
  policy.kind = SocketPolicy::Kind::kClear;
  values = BuildSocketPolicy(policy);
  REQUIRE(values);
  CHECK(values->clear);
  CHECK_FALSE(values->in);
  CHECK_FALSE(values->out);
}

TEST_CASE("A socket policy that would pin nothing is not built") {
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  CHECK(BuildSocketPolicy(policy).error().reason == Reason::kBadRequest);  // no reqid
  policy.reqid = 7;
  CHECK(BuildSocketPolicy(policy));
  policy.family = Family::kNone;
  CHECK(BuildSocketPolicy(policy).error().reason == Reason::kBadRequest);
}

}  // namespace
}  // namespace latchkey::broker
