// Whom the program of an unconnected UDP socket sends to, where what becomes of that is not plain
// from its rules: the broker decides about each, once, and waits for keys where it must.

#include <algorithm>
#include <map>
#include <utility>

#include "policy/request.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/held.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// How many peers one socket may have asked about.
constexpr size_t kMostAsked = 1024;
// Those that were not asked about for so long make way for others then, where nothing is lost.
constexpr int64_t kIdleMs = 60'000;

// Nothing is with one in clear, nor with one to be protected that is bound to nobody (any more):
// each is asked about again when the program sends there.
bool MayMakeWay(const HeldPeer& peer) {
  const bool unbound =
      !peer.identity && peer.latch == 0 && peer.guards.empty() && peer.admissions.empty();
  return peer.asked && (peer.clear || unbound);
}

// True when the socket is held to the rules of whoever asks: by his session, or by another of the
// same privileges.
bool IsHeldAsAsked(const Entry& entry, const Client& client) {
  return entry.policy == client.policy ||
         (entry.requester == client.requester && policy::SameRules(entry.policy, client.policy));
}

// Takes the oldest quarter of the idle ones out, or as many as there are. Whoever can have the
// program send to others, under whatever addresses, could use all places up.
std::map<SocketAddress, HeldPeer> TakeIdle(Held& held, int64_t now) {
  std::vector<std::pair<int64_t, SocketAddress>> idle;
  for (const auto& [remote, peer] : held.peers) {
    const bool old = peer.asked_at <= now - kIdleMs;
    if (old && MayMakeWay(peer)) idle.emplace_back(peer.asked_at, remote);
  }
  std::ranges::sort(idle);
  if (idle.size() > kMostAsked / 4) idle.resize(kMostAsked / 4);
  std::map<SocketAddress, HeldPeer> taken;
  for (const auto& [when, remote] : idle) taken.insert(held.peers.extract(remote));
  return taken;
}

}  // namespace

Answer Engine::Peer(const Client& client, int fd, int fd_hint, const SocketAddress& remote,
                    bool nonblocking, uint32_t scope) {
  Request request{client, fd, fd_hint, /*accept=*/false, nonblocking, remote, scope};
  request.peer = true;
  return Begin(std::move(request));
}

Answer Engine::AttemptPeer(const Request& request, Waiting* waiting, const Error* failure) {
  const Client& client = request.client;
  Flow flow{Direction::kOut, kProtocolUdp, {}, request.remote};
  const Result<SocketFacts> facts = InspectFlow(request.fd);
  if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  if (!facts->datagram_udp) return Refuse(client, flow, Reason::kUnsupported, "not UDP");
  if (request.remote.address.family == Family::kNone || request.remote.port == 0) {
    return Refuse(client, flow, Reason::kBadRequest, "no remote address");
  }
  if (facts->remote.address.family != Family::kNone) {
    return Refuse(client, flow, Reason::kUnsupported, "the socket is connected");
  }
  const Answer held = Hold(client, request.fd, request.fd_hint);
  if (held.verdict != wire::Verdict::kLatched) return held;
  Entry& entry = *database_.Find(held.latch);
  if (!IsHeldAsAsked(entry, client)) {
    return Refuse(client, flow, Reason::kUnsupported, "another session's rules hold the socket");
  }
  if (entry.held->regions.empty()) {  // AdoptHeld: blocked, and no asking gives it back
    return Refuse(client, flow, Reason::kSuspectGap, "the socket could not be held anew");
  }
  if (const std::string shut = WhyShut(entry, request.remote.address); !shut.empty()) {
    return Refuse(client, flow, Reason::kNoXfrm, shut);
  }
  flow.local = entry.latch.flow.local;
  if (flow.local.address.IsAny()) {
    flow.local.address = kernel_.SourceAddress(request.remote.address, request.scope)
                             .value_or(Address::AnyOf(request.remote.address.family));
  }
  const policy::Verdict verdict = DecideDatagram(entry, flow);
  const Answer granted{wire::Verdict::kLatched, Reason::kNone, entry.latch.id, 0};
  switch (verdict.outcome) {
    case policy::Outcome::kProtect:
      return ProtectPeer(request, entry, flow, verdict, waiting, failure);
    case policy::Outcome::kBypass:
    case policy::Outcome::kLocal:
    case policy::Outcome::kClear:
      if (Result<void> done = PassInClear(request, entry, flow, verdict); !done) {
        return Refuse(client, flow, done.error().reason, done.error().ToString());
      }
      return granted;
    case policy::Outcome::kRefuse:
      break;
  }
  return Refuse(client, flow, verdict.reason, DescribeRule(verdict.rule));
}

Answer Engine::ProtectPeer(const Request& request, Entry& entry, const Flow& flow,
                           const policy::Verdict& verdict, Waiting* waiting, const Error* failure) {
  const Client& client = request.client;
  if (IsManys(request.remote.address)) {
    return Refuse(client, flow, Reason::kUnsupported, "a group has no SA of one peer");
  }
  const bool optional = verdict.rule != nullptr && !verdict.implicit &&
                        verdict.rule->action == policy::Action::kProtectOrBypass;
  if (verdict.demand.unique || optional || verdict.demand.mode == Mode::kTunnel) {
    return Refuse(client, flow, Reason::kUnsupported,
                  "of a socket that is not connected: by \"protect\" in transport mode, and by SAs "
                  "that are not the flow's own");
  }
  if (stale_) return Refuse(client, flow, Reason::kSuspectGap, "the SAs cannot be read");
  const Result<Choice> choice = ChooseOrWait(request, flow, verdict, waiting, failure);
  if (!choice) {
    const Error& why = choice.error();
    if (why.reason == Reason::kNone) return Answer{wire::Verdict::kWait, Reason::kNone, 0, 0};
    return Refuse(client, flow, why.reason, why.ToString());
  }
  // By a rule that names no ports it is one peer, whatever its port.
  SocketAddress key = request.remote;
  Result<HeldPeer*> peer = nullptr;
  if (!verdict.implicit && !PortsMatter(*entry.held, key.address)) key.port = 0;
  if (IsIncoming(verdict) && key.port == 0) {
    peer = &entry.held->peers[key];
  } else {
    peer = AskedPeer(request, entry, key, /*clear=*/false);
  }
  if (!peer) return Refuse(client, flow, peer.error().reason, peer.error().ToString());
  if (RefreshPeer(entry, key, **peer)) {
    return Answer{wire::Verdict::kLatched, Reason::kNone, entry.latch.id, 0};
  }
  const Reason why = (*peer)->why == Reason::kNone ? Reason::kKernelRefused : (*peer)->why;
  return Refuse(client, flow, why, "its datagrams cannot move");
}

// The filter learns of the peer before anything else does. What a socket began to send in clear
// stays so, and what it began to send protected: another answer to the same question is none.
Result<HeldPeer*> Engine::AskedPeer(const Request& request, Entry& entry,
                                    const SocketAddress& remote, bool clear, bool same_host) {
  Held& held = *entry.held;
  if (const auto found = held.peers.find(remote); found != held.peers.end()) {
    found->second.asked_at = kernel_.NowMs();
    if (found->second.clear == clear) {
      found->second.asked = true;  // one that has SAs may be there without
      return &found->second;
    }
    return Fail(Reason::kConflictSpd, "ask about peer", "what the system asks has changed");
  }
  const std::vector<DatagramRegion> before = RegionsOf(held);
  std::map<SocketAddress, HeldPeer> aged;
  const auto full = [&] {
    return CountAsked(held) >= kMostAsked || !HasShare(entry.latch.uid, 0, 1);
  };
  if (full()) aged = TakeIdle(held, kernel_.NowMs());
  if (full()) {
    held.peers.merge(aged);
    return Fail(Reason::kLimit, "ask about peer", "too many of one socket, or one user");
  }
  HeldPeer& peer = held.peers[remote];
  peer.asked = true;
  peer.asked_at = kernel_.NowMs();
  peer.clear = clear;
  peer.same_host = same_host;
  const std::vector<DatagramRegion> regions = RegionsOf(held);
  Result<void> done;
  if (regions != before) {
    const Result<SocketFacts> facts = InspectFlow(request.fd);
    if (!facts) done = std::unexpected(facts.error());
    if (done) done = kernel_.FilterDatagrams(request.fd, *facts, regions);
  }
  if (!done) {  // the kernel has what it had
    held.peers.erase(remote);
    held.peers.merge(aged);
    return std::unexpected(done.error());
  }
  if (!aged.empty()) LetAgedGo(entry, aged);
  return &peer;
}

// Those that made way: the filter lets nothing of them in any more.
void Engine::LetAgedGo(Entry& entry, const std::map<SocketAddress, HeldPeer>& aged) {
  for (const auto& [remote, peer] : aged) {
    for (const Guard& guard : peer.guards) guards_.Drop(guard);
  }
  entry.held->aged_out += aged.size();
  observer_.OnWarning("latch " + std::to_string(entry.latch.id) +
                      ": it sends to so many that the oldest made way, " +
                      std::to_string(entry.held->aged_out) + " until now");
}

Result<void> Engine::PassInClear(const Request& request, Entry& entry, const Flow& flow,
                                 const policy::Verdict& verdict) {
  Result<HeldPeer*> peer = AskedPeer(request, entry, request.remote, /*clear=*/true,
                                     verdict.outcome == policy::Outcome::kLocal);
  if (!peer) return std::unexpected(peer.error());
  // Where a rule is about our addresses, what holds of one says nothing of another.
  const bool any = entry.latch.flow.local.address.IsAny() &&
                   std::ranges::all_of(entry.policy->rules,
                                       [](const policy::Rule& rule) { return rule.local.empty(); });
  const Prefix source = any || flow.local.address.IsAny()
                            ? Prefix{Address::AnyOf(flow.remote.address.family), 0}
                            : Host(flow.local.address);
  Guard guard = DatagramGuard(source, flow.local.port, flow.remote, options_.guard_mark);
  guard.action = Guard::Action::kAllow;
  if (std::ranges::find((*peer)->guards, guard) != (*peer)->guards.end()) return {};
  std::vector<Guard> guards = {guard};
  if (verdict.outcome == policy::Outcome::kClear) {  // against the SPD: the answers too
    guard.out = false;
    guard.mark = 0;
    guard.selector = Mirrored(guard.selector);
    guards.push_back(guard);
  }
  for (const Guard& each : guards) {
    if (Result<void> done = HoldOver(each); !done) {
      for (const Guard& had : std::exchange((*peer)->guards, {})) guards_.Drop(had);
      return done;
    }
    (*peer)->guards.push_back(each);
  }
  if (verdict.outcome == policy::Outcome::kClear) {
    observer_.OnWarning("latch " + std::to_string(entry.latch.id) +
                        " passes the SPD in clear, to " + flow.remote.ToString() + ": " +
                        DescribeRule(verdict.rule));
  }
  return {};
}

}  // namespace latchkey::broker
