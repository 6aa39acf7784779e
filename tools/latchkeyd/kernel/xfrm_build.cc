#include "tools/latchkeyd/kernel/xfrm_build.h"

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include <cstring>

#include "tools/latchkeyd/kernel/addresses.h"

namespace latchkey::broker {
namespace {

constexpr uint32_t kLowestSpi = 0x100;  // 1 to 255 are reserved (RFC 4303, 2.1)
constexpr uint32_t kHighestSpi = 0x0fff'ffff;

void Append(Octets* out, const void* data, size_t size) {
  const auto* octets = static_cast<const uint8_t*>(data);
  out->insert(out->end(), octets, octets + size);
  out->resize(NLMSG_ALIGN(out->size()));
}

void AppendAttribute(Octets* out, uint16_t type, const void* data, size_t size) {
  nlattr header{};
  header.nla_type = type;
  header.nla_len = static_cast<uint16_t>(NLA_HDRLEN + size);
  Append(out, &header, sizeof(header));
  Append(out, data, size);
}

Octets Begin(uint16_t type) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  Octets out;
  Append(&out, &header, sizeof(header));
  return out;
}

Octets Finish(Octets out) {
  const auto length = static_cast<uint32_t>(out.size());
  std::memcpy(out.data(), &length, sizeof(length));  // nlmsg_len comes first
  return out;
}

xfrm_selector ToXfrmSelector(const Selector& from) {
  xfrm_selector to{};
  to.family = ToAf(from.family);
  to.saddr = ToXfrm(from.source.base);
  to.daddr = ToXfrm(from.destination.base);
  to.prefixlen_s = from.source.length;
  to.prefixlen_d = from.destination.length;
  to.proto = from.protocol;
  to.sport = htons(from.source_port);
  to.sport_mask = htons(from.source_mask);
  to.dport = htons(from.destination_port);
  to.dport_mask = htons(from.destination_mask);
  return to;
}

// An entry that never expires; zero limits would have it expire at once.
xfrm_userpolicy_info Policy(Family family, bool out, bool block) {
  xfrm_userpolicy_info info{};
  info.sel.family = ToAf(family);
  info.lft.soft_byte_limit = info.lft.hard_byte_limit = XFRM_INF;
  info.lft.soft_packet_limit = info.lft.hard_packet_limit = XFRM_INF;
  info.dir = out ? XFRM_POLICY_OUT : XFRM_POLICY_IN;
  info.action = block ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW;
  return info;
}

// What an SA must be like.
struct Wanted {
  SaProtocol protocol = SaProtocol::kEsp;
  Mode mode = Mode::kTransport;
  uint32_t reqid = 0;
  uint32_t spi = 0;
  Address source;  // tunnel mode: of the outer header; kNone: any
  Address destination;
};

// The algorithm masks say "any": the kernel does not enforce them (KERNEL.md 2.2), the broker
// judges each SA itself. In transport mode the addresses are the packet's own.
xfrm_user_tmpl Template(const Wanted& wanted, Family family) {
  xfrm_user_tmpl tmpl{};
  tmpl.id.proto = static_cast<uint8_t>(wanted.protocol);
  tmpl.id.spi = htonl(wanted.spi);
  tmpl.family = ToAf(family);
  tmpl.reqid = wanted.reqid;
  tmpl.mode = XFRM_MODE_TRANSPORT;
  if (wanted.mode == Mode::kTunnel) {
    tmpl.mode = XFRM_MODE_TUNNEL;
    if (wanted.destination.family != Family::kNone) {
      tmpl.family = ToAf(wanted.destination.family);
      tmpl.saddr = ToXfrm(wanted.source);
      tmpl.id.daddr = ToXfrm(wanted.destination);
    }
  }
  tmpl.aalgos = tmpl.ealgos = tmpl.calgos = ~0u;
  return tmpl;
}

// In tunnel mode an outgoing template must say whereto, and both ends are of one family. No other
// mode is known to work.
Result<void> CheckMode(Mode mode, const TunnelEnds& ends, bool out, const char* step) {
  if (mode == Mode::kTransport) return {};
  if (mode != Mode::kTunnel) {
    return Fail(Reason::kUnsupported, step, "a mode other than transport and tunnel");
  }
  if (ends.local.family != ends.remote.family || (out && ends.remote.family == Family::kNone)) {
    return Fail(Reason::kBadRequest, step, "a tunnel without its two ends");
  }
  return {};
}

Octets SocketValue(const xfrm_userpolicy_info& info, const xfrm_user_tmpl* tmpl) {
  Octets value(sizeof(info) + (tmpl != nullptr ? sizeof(*tmpl) : 0));
  std::memcpy(value.data(), &info, sizeof(info));
  if (tmpl != nullptr) std::memcpy(value.data() + sizeof(info), tmpl, sizeof(*tmpl));
  return value;
}

// A socket's policy is asked before the SPD, so this must match nothing but the flow.
Octets AllowValue(const SocketPolicy& policy, bool out) {
  xfrm_userpolicy_info info = Policy(policy.family, out, /*block=*/false);
  const SocketAddress& remote = policy.flow.remote;
  const auto bits = static_cast<uint8_t>(remote.address.Bits());
  info.sel.proto = policy.flow.protocol;
  (out ? info.sel.daddr : info.sel.saddr) = ToXfrm(remote.address);
  (out ? info.sel.prefixlen_d : info.sel.prefixlen_s) = bits;
  (out ? info.sel.dport : info.sel.sport) = htons(remote.port);
  (out ? info.sel.dport_mask : info.sel.sport_mask) = 0xffff;
  return SocketValue(info, nullptr);
}

Octets RequireValue(const SocketPolicy& policy, bool out, uint32_t reqid, uint32_t spi) {
  const Address& source = out ? policy.ends.local : policy.ends.remote;
  const Address& destination = out ? policy.ends.remote : policy.ends.local;
  const xfrm_user_tmpl tmpl = Template(
      Wanted{policy.protocol, policy.mode, reqid, spi, source, destination}, policy.family);
  return SocketValue(Policy(policy.family, out, /*block=*/false), &tmpl);
}

Octets BlockValue(Family family, bool out) {
  return SocketValue(Policy(family, out, /*block=*/true), nullptr);
}

Result<void> CheckGuard(const Guard& guard) {
  const Selector& selector = guard.selector;
  if (selector.family == Family::kNone || selector.source.base.family != selector.family ||
      selector.destination.base.family != selector.family) {
    return Fail(Reason::kBadRequest, "build guard", "the selector has no one family");
  }
  if (guard.mark == 0 ? guard.unset != 0 : (guard.mark & guard.unset) != 0) {
    return Fail(Reason::kBadRequest, "build guard", "bits of the mark both set and not");
  }
  if (guard.out && Requires(guard.action) && guard.reqid == 0) {
    return Fail(Reason::kBadRequest, "build guard", "an outgoing guard with an SA needs a reqid");
  }
  if (Requires(guard.action)) return CheckMode(guard.mode, guard.ends, guard.out, "build guard");
  return {};
}

void AppendMark(Octets* out, uint32_t value, uint32_t unset = 0) {
  if (value == 0) return;
  const xfrm_mark mark{value, value | unset};
  AppendAttribute(out, XFRMA_MARK, &mark, sizeof(mark));
}

Result<Octets> BuildPutGuard(uint16_t type, const Guard& guard) {
  if (Result<void> checked = CheckGuard(guard); !checked) return std::unexpected(checked.error());
  const Family family = guard.selector.family;
  xfrm_userpolicy_info info = Policy(family, guard.out, guard.action == Guard::Action::kBlock);
  info.sel = ToXfrmSelector(guard.selector);
  info.priority = guard.priority;
  Octets out = Begin(type);
  Append(&out, &info, sizeof(info));
  if (Requires(guard.action)) {
    const SaProtocol protocol =
        guard.action == Guard::Action::kAh ? SaProtocol::kAh : SaProtocol::kEsp;
    const Address& source = guard.out ? guard.ends.local : guard.ends.remote;
    const Address& destination = guard.out ? guard.ends.remote : guard.ends.local;
    const xfrm_user_tmpl tmpl =
        Template(Wanted{protocol, guard.mode, guard.reqid, 0, source, destination}, family);
    AppendAttribute(&out, XFRMA_TMPL, &tmpl, sizeof(tmpl));
  }
  AppendMark(&out, guard.mark, guard.unset);
  return Finish(std::move(out));
}

}  // namespace

Result<Octets> BuildRenewGuard(const Guard& from, const Guard& to) {
  Guard same = from;
  same.reqid = to.reqid;
  same.action = to.action;
  same.mode = to.mode;
  same.ends = to.ends;
  if (same != to || !Requires(from.action) || !Requires(to.action)) {
    return Fail(Reason::kBadRequest, "build guard", "more than the SA changes");
  }
  return BuildPutGuard(XFRM_MSG_UPDPOLICY, to);
}

Result<Octets> BuildAddGuard(const Guard& guard) {
  return BuildPutGuard(XFRM_MSG_NEWPOLICY, guard);
}

Octets BuildAllocSpi(const Address& local, const Address& remote, SaProtocol protocol, Mode mode,
                     uint32_t reqid, uint32_t mark) {
  xfrm_userspi_info asked{};
  asked.info.family = ToAf(remote.family);
  asked.info.saddr = ToXfrm(local);
  asked.info.id.daddr = ToXfrm(remote);
  asked.info.id.proto = static_cast<uint8_t>(protocol);
  asked.info.mode = mode == Mode::kTunnel ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
  asked.info.reqid = reqid;
  asked.min = kLowestSpi;
  asked.max = kHighestSpi;
  Octets out = Begin(XFRM_MSG_ALLOCSPI);
  Append(&out, &asked, sizeof(asked));
  AppendMark(&out, mark);
  return Finish(std::move(out));
}

Octets BuildDeleteSa(const SaKey& key, uint32_t mark) {
  xfrm_usersa_id id{};
  id.daddr = ToXfrm(key.destination);
  id.spi = htonl(key.spi);
  id.family = ToAf(key.destination.family);
  id.proto = static_cast<uint8_t>(key.protocol);
  Octets out = Begin(XFRM_MSG_DELSA);
  Append(&out, &id, sizeof(id));
  AppendMark(&out, mark);
  return Finish(std::move(out));
}

Result<Octets> BuildDeleteGuard(const Guard& guard) {
  if (Result<void> checked = CheckGuard(guard); !checked) return std::unexpected(checked.error());
  xfrm_userpolicy_id id{};
  id.sel = ToXfrmSelector(guard.selector);
  id.dir = guard.out ? XFRM_POLICY_OUT : XFRM_POLICY_IN;
  Octets out = Begin(XFRM_MSG_DELPOLICY);
  Append(&out, &id, sizeof(id));
  AppendMark(&out, guard.mark, guard.unset);
  return Finish(std::move(out));
}

Octets BuildRequest(uint16_t type, size_t body_size) {
  Octets out = Begin(type);
  out.resize(NLMSG_ALIGN(out.size() + body_size));
  return Finish(std::move(out));
}

Result<SocketPolicyValues> BuildSocketPolicy(const SocketPolicy& policy) {
  using Kind = SocketPolicy::Kind;
  SocketPolicyValues values;
  if (policy.kind == Kind::kClear) {
    values.clear = true;
    return values;
  }
  if (policy.family == Family::kNone) {
    return Fail(Reason::kBadRequest, "build socket policy", "no family");
  }
  const bool requires_sa = policy.kind == Kind::kProtect || policy.kind == Kind::kRequireIn ||
                           policy.kind == Kind::kAwaitIn;
  if (requires_sa && policy.protocol == SaProtocol::kNone) {
    return Fail(Reason::kBadRequest, "build socket policy", "neither ESP nor AH");
  }
  if (requires_sa) {
    const bool out = policy.kind == Kind::kProtect;
    if (Result<void> checked = CheckMode(policy.mode, policy.ends, out, "build socket policy");
        !checked) {
      return std::unexpected(checked.error());
    }
  }
  switch (policy.kind) {
    case Kind::kProtect:
      if (policy.reqid == 0) {
        return Fail(Reason::kBadRequest, "build socket policy", "a pin needs a reqid");
      }
      values.in = RequireValue(policy, /*out=*/false, policy.reqid, policy.spi_in);
      values.out = RequireValue(policy, /*out=*/true, policy.reqid, policy.spi_out);
      return values;
    case Kind::kRequireIn:
      values.in = RequireValue(policy, /*out=*/false, 0, 0);
      return values;
    case Kind::kAwaitIn:
      if (policy.reqid == 0) {
        return Fail(Reason::kBadRequest, "build socket policy", "a reqid of 0 would let all in");
      }
      values.in = RequireValue(policy, /*out=*/false, policy.reqid, 0);
      return values;
    case Kind::kAllow:
      if (policy.flow.protocol == 0 || policy.flow.remote.address.family != policy.family) {
        return Fail(Reason::kBadRequest, "build socket policy", "to allow needs a flow");
      }
      values.in = AllowValue(policy, /*out=*/false);
      values.out = AllowValue(policy, /*out=*/true);
      return values;
    case Kind::kBlock:
      values.in = BlockValue(policy.family, /*out=*/false);
      values.out = BlockValue(policy.family, /*out=*/true);
      return values;
    case Kind::kClear:
      break;
  }
  return Fail(Reason::kBadRequest, "build socket policy", "unknown kind");
}

Octets BuildSocketBypass(Family family, bool out) {
  return SocketValue(Policy(family, out, /*block=*/false), nullptr);
}

}  // namespace latchkey::broker
