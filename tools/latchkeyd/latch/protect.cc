#include "tools/latchkeyd/latch/protect.h"

#include <algorithm>
#include <optional>

namespace latchkey::broker {
namespace {

// Smaller = narrower: how much a selector leaves open.
int Width(const Selector& selector) {
  int width = 0;
  if (selector.protocol == 0) width += 1000;
  if (selector.source_mask == 0) width += 500;
  if (selector.destination_mask == 0) width += 500;
  width += 256 - selector.source.length - selector.destination.length;
  return width;
}

// What an SA does, as far as this end of it can say: whether its packets are checked for replay is
// decided where they come in, and the kernel shows it only there.
Protection ProtectionOf(const KnownSa& known, const Protection& inbound) {
  Protection protection = known.sa.protection;
  if (!known.inbound) protection.replay = inbound.replay;
  return protection;
}

}  // namespace

Result<SaPair> ChoosePair(const std::vector<const KnownSa*>& out,
                          const std::vector<const KnownSa*>& in, const policy::Demand& demand) {
  const uint32_t reqid = demand.reqid;
  if (out.empty() || in.empty()) {
    return Fail(Reason::kNoSa, "find SA",
                out.empty() ? "none to this address" : "none from this address");
  }
  const auto candidate = [&demand](const KnownSa& known) {
    return !demand.unique || known.sa.selector.OfOneFlow();
  };
  const auto first_in =
      std::ranges::find_if(in, [&](const KnownSa* each) { return candidate(*each); });
  std::optional<Identity> identity;
  std::optional<Protection> protection;
  for (const auto* list : {&out, &in}) {
    for (const KnownSa* known : *list) {
      // One that its key manager has forgotten since: still of whom it was, and nobody's choice.
      const bool forgotten = known->doubtful() && known->vouched && !known->who.pending();
      if (!known->who.known() && !forgotten) {
        if (known->doubtful() && !known->who.pending()) {
          return Fail(Reason::kKmLost, "identify peer", "whoever knew cannot be asked");
        }
        return Fail(out.size() + in.size() > 2 ? Reason::kAmbiguousPeer : Reason::kPeerUnknown,
                    "identify peer", "the key manager names nobody, or more than one");
      }
      const Identity& theirs = forgotten ? *known->vouched : known->who.verified.identity;
      if (identity && *identity != theirs) {
        return Fail(
            Reason::kAmbiguousPeer, "identify peer",
            "both \"" + identity->peer_id + "\" and \"" + theirs.peer_id + "\" have an SA for it");
      }
      identity = theirs;
      if (!candidate(*known) || first_in == in.end()) continue;
      const Protection own = ProtectionOf(*known, (*first_in)->sa.protection);
      if (protection && *protection != own) {
        return Fail(
            Reason::kConflictSa, "find SA",
            "SAs of different protection: " + protection->ToString() + " and " + own.ToString());
      }
      protection = own;
    }
  }
  if (!protection) {
    return Fail(Reason::kNoSa, "find SA", "none of the flow's own: wider ones serve others too");
  }
  if (const Reason judged = policy::Judge(demand, *identity, *protection);
      judged != Reason::kNone) {
    return Fail(judged, "judge SA",
                "peer \"" + identity->peer_id + "\" with " + protection->ToString());
  }
  SaPair best;
  bool packet_offload = false;
  bool lost = false;
  for (const KnownSa* known : out) {
    if (!candidate(*known) || (reqid != 0 && known->sa.reqid != reqid)) continue;
    // A reqid of 0 in an outgoing template matches only reqid 0, and pins nothing: not for us.
    if (known->sa.reqid == 0) continue;
    if (!known->who.known()) {
      lost = true;
      continue;
    }
    if (known->sa.offload == Offload::kPacket) packet_offload = true;
    const KnownSa* back = nullptr;
    // An SA of the flow's own comes back by one of its own: the peer's socket is told so.
    const bool own = known->sa.selector.OfOneFlow();
    for (const KnownSa* other : in) {
      if (other->who.known() && other->sa.reqid == known->sa.reqid && other->sa.mark_mask == 0 &&
          other->sa.selector.OfOneFlow() == own && other->local() == known->local() &&
          other->remote() == known->remote()) {
        back = other;
        break;
      }
    }
    if (back == nullptr) continue;
    if (best.out == nullptr || Width(known->sa.selector) < Width(best.out->sa.selector)) {
      best = SaPair{known, back};
    }
  }
  // What a card takes off the wire whole may reach the socket without the SA that a policy asks
  // for, and no probe can tell without such a card.
  if (packet_offload || (best.in != nullptr && best.in->sa.offload == Offload::kPacket)) {
    return Fail(Reason::kOffloadUntagged, "find SA", "its packets are offloaded whole");
  }
  if (best.out == nullptr && lost) {
    return Fail(Reason::kKmLost, "identify peer", "whoever knew cannot be asked");
  }
  if (best.out == nullptr) {
    return Fail(Reason::kNoSa, "find SA",
                reqid != 0 ? "no pair under reqid " + std::to_string(reqid)
                           : "no pair under one reqid other than 0");
  }
  return best;
}

TunnelEnds EndsOf(const Protection& protection, const Peering& peering) {
  if (protection.mode != Mode::kTunnel) return {};
  return {peering.local.address, peering.remote.address};
}

bool SameEnds(const KnownSa& known, const Latch& latch) {
  return latch.protection.mode != Mode::kTunnel ||
         TunnelEnds{known.local(), known.remote()} == EndsOf(latch.protection, latch.peering);
}

bool Conflicts(const KnownSa& known, const Latch& latch) {
  return !known.who.known() || known.who.verified.identity != latch.identity ||
         OtherProtection(known, latch);
}

bool OtherProtection(const KnownSa& known, const Latch& latch) {
  return ProtectionOf(known, latch.protection) != latch.protection;
}

void Block(KernelPort& kernel, int fd, const SocketFacts& facts, Family family) {
  SocketPolicy block;
  block.kind = SocketPolicy::Kind::kBlock;
  block.family = family;
  (void)kernel.SetPolicy(fd, facts, block);
}

void FillOwner(Entry& entry, const Client& client, const SocketFacts& facts, int fd_hint,
               KernelPort& kernel) {
  entry.session = client.session;
  entry.policy = client.policy;
  entry.requester = client.requester;
  entry.hint = SocketHint{facts.cookie, facts.inode, client.pid, fd_hint};
  entry.v6_socket = facts.v6_socket;
  entry.created = kernel.NowMs();
  entry.latch.program = client.program;
  entry.latch.pid = static_cast<uint32_t>(client.pid);
  entry.latch.uid = client.requester.uid;
  entry.latch.policy = client.policy->application;
  entry.latch.since = kernel.WallSeconds();
}

Guard FlowGuard(const Latch& latch, uint32_t mark, bool narrow) {
  const auto host = [](const Address& address) {
    return Prefix{address, static_cast<uint8_t>(address.Bits())};
  };
  Guard guard;
  guard.action = RequireAction(latch.protection.protocol);
  guard.reqid = latch.reqid;
  guard.mark = mark;
  guard.mode = latch.protection.mode;
  guard.ends = EndsOf(latch.protection, latch.peering);
  guard.selector.family = latch.flow.remote.address.family;
  guard.selector.source = host(latch.flow.local.address);
  guard.selector.destination = host(latch.flow.remote.address);
  guard.selector.protocol = latch.flow.protocol;
  if (latch.flow.direction == Direction::kIn) {
    guard.selector.source_port = latch.flow.local.port;
    guard.selector.source_mask = 0xffff;
  }
  // What leaves an unconnected UDP socket asks the SPD alone: it must not go by another's entry.
  narrow = narrow || latch.flow.protocol == kProtocolUdp;
  if (latch.flow.direction != Direction::kIn || narrow) {
    guard.selector.destination_port = latch.flow.remote.port;
    guard.selector.destination_mask = 0xffff;
  }
  if (narrow && latch.flow.local.port != 0) {
    guard.selector.source_port = latch.flow.local.port;
    guard.selector.source_mask = 0xffff;
  }
  return guard;
}

Guard LarvalGuard(const SocketAddress& remote, uint8_t protocol, uint32_t reqid, uint32_t mark) {
  Guard guard;
  guard.action = Guard::Action::kEsp;
  guard.reqid = reqid;
  guard.mark = mark;
  guard.selector.family = remote.address.family;
  guard.selector.source = Prefix{Address::AnyOf(remote.address.family), 0};
  guard.selector.destination = Prefix{remote.address, static_cast<uint8_t>(remote.address.Bits())};
  guard.selector.protocol = protocol;
  guard.selector.destination_port = remote.port;
  guard.selector.destination_mask = 0xffff;
  return guard;
}

bool IsManys(const Address& address) {
  const uint8_t first = address.octets[0];
  if (address.family == Family::kV6) return first == 0xff;
  const Address broadcast{Family::kV4, {0xff, 0xff, 0xff, 0xff}};
  return address.family == Family::kV4 && ((first >> 4) == 0xe || address == broadcast);
}

std::vector<Family> FamiliesOf(const SocketFacts& facts) {
  if (facts.local.address.family == Family::kV4) return {Family::kV4};
  if (facts.v6_socket && !facts.v6_only && facts.local.address.IsAny()) {
    return {Family::kV6, Family::kV4};
  }
  return {Family::kV6};
}

bool IsLack(Reason reason) {
  return reason == Reason::kNoSa || reason == Reason::kNoChild || reason == Reason::kAcquireTimeout;
}

Result<void> AllowClear(KernelPort& kernel, int fd, const SocketFacts& facts, const Flow& flow) {
  SocketPolicy allow;
  allow.kind = SocketPolicy::Kind::kAllow;
  allow.family = flow.remote.address.family;
  allow.flow = flow;
  return kernel.SetPolicy(fd, facts, allow);
}

std::string DescribeRule(const policy::Rule* rule) {
  return rule == nullptr ? "default" : "rule " + rule->name;
}

}  // namespace latchkey::broker
