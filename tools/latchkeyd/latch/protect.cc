#include "tools/latchkeyd/latch/protect.h"

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

}  // namespace

Result<SaPair> ChoosePair(const std::vector<const KnownSa*>& out,
                          const std::vector<const KnownSa*>& in, const policy::Demand& demand) {
  const uint32_t reqid = demand.reqid;
  if (out.empty() || in.empty()) {
    return Fail(Reason::kNoSa, "find SA",
                out.empty() ? "none to this address" : "none from this address");
  }
  std::optional<Identity> identity;
  const Protection* protection = nullptr;
  for (const auto* list : {&out, &in}) {
    for (const KnownSa* known : *list) {
      if (!known->who.known()) {
        return Fail(out.size() + in.size() > 2 ? Reason::kAmbiguousPeer : Reason::kPeerUnknown,
                    "identify peer", "the key manager names nobody, or more than one");
      }
      if (identity && *identity != known->who.verified.identity) {
        return Fail(Reason::kAmbiguousPeer, "identify peer",
                    "both \"" + identity->peer_id + "\" and \"" +
                        known->who.verified.identity.peer_id + "\" have an SA for it");
      }
      identity = known->who.verified.identity;
      if (protection != nullptr && *protection != known->sa.protection) {
        return Fail(Reason::kConflictSa, "find SA",
                    "SAs of different protection: " + protection->ToString() + " and " +
                        known->sa.protection.ToString());
      }
      protection = &known->sa.protection;
    }
  }
  if (protection == nullptr) return Fail(Reason::kNoSa, "find SA", "none");  // not reached
  if (const Reason judged = policy::Judge(demand, *identity, *protection);
      judged != Reason::kNone) {
    return Fail(judged, "judge SA",
                "peer \"" + identity->peer_id + "\" with " + protection->ToString());
  }
  SaPair best;
  for (const KnownSa* candidate : out) {
    if (reqid != 0 && candidate->sa.reqid != reqid) continue;
    // A reqid of 0 in an outgoing template matches only reqid 0, and pins nothing: not for us.
    if (candidate->sa.reqid == 0) continue;
    const KnownSa* back = nullptr;
    for (const KnownSa* other : in) {
      if (other->sa.reqid == candidate->sa.reqid && other->sa.mark_mask == 0 &&
          other->local() == candidate->local() && other->remote() == candidate->remote()) {
        back = other;
        break;
      }
    }
    if (back == nullptr) continue;
    if (best.out == nullptr || Width(candidate->sa.selector) < Width(best.out->sa.selector)) {
      best = SaPair{candidate, back};
    }
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
         known.sa.protection != latch.protection;
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

Guard FlowGuard(const Latch& latch, uint32_t mark) {
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
  } else {
    guard.selector.destination_port = latch.flow.remote.port;
    guard.selector.destination_mask = 0xffff;
  }
  return guard;
}

std::string DescribeRule(const policy::Rule* rule) {
  return rule == nullptr ? "default" : "rule " + rule->name;
}

}  // namespace latchkey::broker
