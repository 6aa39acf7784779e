#include "tools/latchkeyd/latch/engine.h"

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
Engine::Engine(KernelPort& kernel, KeyManager& keys, Observer& observer, Options options)
    : kernel_(kernel),
      keys_(keys),
      observer_(observer),
      options_(std::move(options)),
      database_(observer),
      guards_(kernel, observer) {}

Answer Engine::Refuse(const Client& client, const Flow& flow, Reason reason,
                      const std::string& detail) {
  observer_.OnRefusal(client, flow, reason, detail);
  return Answer{wire::Verdict::kRefused, reason, 0, 0};
}

Result<SocketFacts> Engine::InspectInet(int fd) {
  Result<SocketFacts> facts = kernel_.Inspect(fd);
  if (!facts) return facts;
  if (!facts->inet) return Fail(Reason::kBadRequest, "inspect socket", "not an inet socket");
  if (!facts->own_netns) {
    return Fail(Reason::kForeignNetns, "inspect socket", "of a network namespace not guarded here");
  }
  return facts;
}

Result<SocketFacts> Engine::InspectTcp(int fd) {
  Result<SocketFacts> facts = InspectInet(fd);
  if (facts && !facts->stream_tcp) {
    return Fail(Reason::kUnsupported, "inspect socket", "not TCP");
  }
  return facts;
}

// What can be connected under a latch.
Result<SocketFacts> Engine::InspectFlow(int fd) {
  Result<SocketFacts> facts = InspectInet(fd);
  if (facts && !facts->stream_tcp && !facts->datagram_udp) {
    return Fail(Reason::kUnsupported, "inspect socket", "neither TCP nor UDP");
  }
  if (facts && facts->shut_down) {
    return Fail(Reason::kClosed, "inspect socket", "shut down, as a broken one may be");
  }
  return facts;
}

// The device by which what a socket without a latch sends comes back to this host; 0: it may leave
// it. An address of ours is not enough: where its interface is down, or of a VRF that the socket is
// not in, the routes lead to whoever else has it.
uint32_t Engine::StaysBy(int fd, uint32_t mark, const Flow& flow) const {
  const Address& remote = flow.remote.address;
  if (!flow.SameHost() && !kernel_.IsLocalAddress(remote)) return 0;
  const std::optional<Route> route = kernel_.RouteTo(fd, flow.local.address, remote, mark);
  if (!route) return remote.IsLoopback() ? kLoopbackDevice : 0;
  return route->stays ? route->index : 0;
}

Answer Engine::LeaveAlone(const Client& client, int fd, const SocketFacts& facts, const Flow& flow,
                          const Leave& leave) {
  // What an earlier latch, or the listener, left on the socket is taken away: the SPD decides now.
  const bool was_held = Supersede(facts.cookie) || leave.was_held;
  if ((facts.mark & options_.guard_mark) != 0) {
    Family family = flow.remote.address.family;
    if (family == Family::kNone) family = facts.v6_socket ? Family::kV6 : Family::kV4;
    if (facts.datagram_udp) {  // and what it received
      const Result<bool> moved = MoveDatagrams(fd, facts, flow, leave.scope);
      if (!moved) return Refuse(client, flow, moved.error().reason, moved.error().ToString());
      if (!*moved) return Answer{wire::Verdict::kBypass, Reason::kNone, 0, 0};
    }
    SocketPolicy clear;
    clear.kind = SocketPolicy::Kind::kClear;
    clear.family = family;
    if (Result<void> done = kernel_.SetPolicy(fd, facts, clear); !done) {
      return Refuse(client, flow, done.error().reason, done.error().ToString());
    }
    if (Result<void> done = kernel_.SetMark(fd, facts, 0, options_.guard_mark); !done) {
      return Refuse(client, flow, done.error().reason, done.error().ToString());
    }
  }
  if (Result<void> done = OpenFilter(was_held, fd, facts); !done) {
    return Refuse(client, flow, done.error().reason, done.error().ToString());
  }
  if (was_held) opened_.emplace(facts.cookie, facts.inode);
  const auto verdict = leave.stays_by != 0 ? wire::Verdict::kLocal : wire::Verdict::kBypass;
  return Answer{verdict, Reason::kNone, 0, 0, leave.stays_by};
}

Answer Engine::Connect(const Client& client, int fd, int fd_hint, const SocketAddress& remote,
                       bool nonblocking, uint32_t scope) {
  return Begin(Request{client, fd, fd_hint, /*accept=*/false, nonblocking, remote, scope});
}

Answer Engine::Accept(const Client& client, int fd, int fd_hint) {
  return Begin(Request{client, fd, fd_hint, /*accept=*/true, /*nonblocking=*/false, {}});
}

Answer Engine::Attempt(const Request& request, Waiting* waiting, const Error* failure) {
  if (request.peer) return AttemptPeer(request, waiting, failure);
  return request.accept ? AttemptAccept(request, waiting, failure)
                        : AttemptConnect(request, waiting, failure);
}

Answer Engine::AttemptConnect(const Request& request, Waiting* waiting, const Error* failure) {
  const Client& client = request.client;
  const SocketAddress& remote = request.remote;
  Result<SocketFacts> facts = InspectFlow(request.fd);
  const bool datagrams = facts && facts->datagram_udp;
  Flow flow{Direction::kOut, datagrams ? kProtocolUdp : kProtocolTcp, {}, remote};
  if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  if (remote.address.family == Family::kNone) {
    return Refuse(client, flow, Reason::kBadRequest, "no remote address");
  }
  flow.local = facts->local;
  if (flow.local.address.family != remote.address.family || flow.local.address.IsAny()) {
    std::optional<Address> source = kernel_.SourceAddress(remote.address, request.scope);
    // Without a route the kernel's own connect() says so; there is nothing to protect.
    flow.local.address = source.value_or(Address::AnyOf(remote.address.family));
  }
  if (Entry* old = database_.FindByCookie(facts->cookie)) {
    if (old->latch.state == State::kListener && !datagrams) {
      return Refuse(client, flow, Reason::kBadRequest, "the socket listens");
    }
    // The socket was reset, or its first connect failed: this is a new flow. What lets it pass in
    // clear ends with the old one. (Datagrams: it is the latch until a new one is made, and stays
    // it where none can be.)
    if (!datagrams && old->latch.clear) {
      SocketPolicy clear;
      clear.kind = SocketPolicy::Kind::kClear;
      if (Result<void> done = kernel_.SetPolicy(request.fd, *facts, clear); !done) {
        return Refuse(client, flow, done.error().reason, done.error().ToString());
      }
    }
    if (!datagrams) Close(old->latch.id, Reason::kClosed);
  }
  const uint32_t stays_by = StaysBy(request.fd, facts->mark & ~options_.guard_mark, flow);
  const policy::Verdict verdict =
      policy::Decide(system(), *client.policy, client.requester, flow, stays_by != 0);
  if (verdict.outcome == policy::Outcome::kProtect && verdict.demand.unique &&
      facts->local.port == 0) {
    // Nobody can be asked for an SA of a flow's own whose port is not known.
    if (Result<void> bound = kernel_.BindAny(request.fd, *facts); !bound) {
      return Refuse(client, flow, bound.error().reason, bound.error().ToString());
    }
    facts = InspectFlow(request.fd);
    if (!facts || facts->local.port == 0) {
      return Refuse(client, flow, Reason::kKernelRefused, "bound, and has no port");
    }
    return AttemptConnect(request, waiting, failure);
  }
  if (verdict.outcome == policy::Outcome::kProtect && IsManys(remote.address)) {
    return Refuse(client, flow, Reason::kUnsupported, "a group has no SA of one peer");
  }
  switch (verdict.outcome) {
    case policy::Outcome::kProtect:
      return Protect(request, *facts, flow, verdict, waiting, failure);
    case policy::Outcome::kBypass:
      return LeaveAlone(client, request.fd, *facts, flow, {.scope = request.scope});
    case policy::Outcome::kLocal:
      return LeaveAlone(client, request.fd, *facts, flow,
                        {.scope = request.scope, .stays_by = stays_by});
    case policy::Outcome::kClear:
      return GoClear(request, *facts, flow, verdict, *verdict.permit);
    case policy::Outcome::kRefuse:
      break;
  }
  return Refuse(client, flow, verdict.reason, DescribeRule(verdict.rule));
}

Result<Engine::Choice> Engine::ChooseSa(const Flow& flow, const policy::Demand& demand) {
  IdentifyAgain(flow);
  const std::vector<const KnownSa*> out = sas_.Carrying(flow, /*inbound=*/false);
  const std::vector<const KnownSa*> in = sas_.Carrying(flow, /*inbound=*/true);
  Result<SaPair> pair = ChoosePair(out, in, demand);
  if (!pair) return std::unexpected(pair.error());
  Choice choice;
  choice.verified = pair->out->who.verified;
  choice.protection = pair->in->sa.protection;
  choice.offload = std::max(pair->out->sa.offload, pair->in->sa.offload);
  choice.reqid = pair->out->sa.reqid;
  choice.own = pair->out->sa.selector.OfOneFlow();
  choice.pin = demand.pin;
  if (choice.pin == Pin::kAuto) {
    // Wider SAs may go by the same reqid.
    choice.pin = choice.verified.static_reqid && !choice.own ? Pin::kReqid : Pin::kSpi;
  }
  choice.spi_in = pair->in->sa.key.spi;
  choice.spi_out = pair->out->sa.key.spi;
  return choice;
}

Result<void> Engine::Pin(int fd, const SocketFacts& facts, const Flow& flow, const Choice& choice) {
  SocketPolicy policy;
  policy.kind = SocketPolicy::Kind::kProtect;
  policy.family = flow.remote.address.family;
  policy.protocol = choice.protection.protocol;
  policy.mode = choice.protection.mode;
  policy.ends = EndsOf(choice.protection, choice.verified.peering);
  policy.reqid = choice.reqid;
  if (choice.pin == Pin::kSpi) {
    policy.spi_in = choice.spi_in;
    policy.spi_out = choice.spi_out;
  }
  // The mark first: from then on what leaves beside the socket policy meets the standing BLOCK.
  if (Result<void> done = kernel_.SetMark(fd, facts, options_.guard_mark, options_.guard_mark);
      !done) {
    return done;
  }
  return kernel_.SetPolicy(fd, facts, policy);
}

void Engine::Describe(Entry& entry, const Choice& choice, const policy::Verdict& verdict) {
  Latch& latch = entry.latch;
  latch.identity = choice.verified.identity;
  latch.peering = choice.verified.peering;
  latch.protection = choice.protection;
  latch.offload = choice.offload;
  latch.pin = choice.pin;
  latch.reqid = choice.reqid;
  latch.spi_in = choice.spi_in;
  latch.spi_out = choice.spi_out;
  latch.implicit = verdict.implicit;
  entry.static_reqid = choice.verified.static_reqid;
  entry.own_sa = choice.own;
}

bool Engine::Suspends(const policy::Verdict& verdict) const {
  const policy::OnBreak on_break = verdict.rule != nullptr && !verdict.implicit
                                       ? verdict.rule->on_break
                                       : options_.system->on_break;
  return on_break == policy::OnBreak::kSuspend;
}

// Chooses the SAs of a flow, or begins to wait for them: then the reason of the error is kNone.
Result<Engine::Choice> Engine::ChooseOrWait(const Request& request, const Flow& flow,
                                            const policy::Verdict& verdict, Waiting* waiting,
                                            const Error* failure) {
  Result<Choice> choice = ChooseSa(flow, verdict.demand);
  if (choice) return choice;
  const bool pending = Pending(flow);
  const bool lacking = choice.error().reason == Reason::kNoSa;
  // Only SAs that nobody can speak for: whoever is asked for others may make some.
  const bool forgotten = choice.error().reason == Reason::kKmLost;
  const bool negotiable = (lacking || forgotten) && !request.accept && failure == nullptr;
  Error why = choice.error();
  // What an SA that is there says of itself counts more than how a negotiation ended; and one of
  // some peer's is no lack of an SA.
  if (failure != nullptr && (lacking || (forgotten && !IsLack(failure->reason)))) {
    why = *failure;
    if (verdict.demand.unique && why.reason == Reason::kNoSa) {
      why.value += "; " + choice.error().value;
    }
  }
  if (MayWait(waiting) && (pending || negotiable)) {
    const Result<void> waits = Wait(*waiting, flow, verdict, pending);
    if (waits) return std::unexpected(Error{"find SA", "waits", Reason::kNone});
    if (!forgotten) why = waits.error();
  }
  return std::unexpected(why);
}

Answer Engine::Protect(const Request& request, const SocketFacts& facts, const Flow& flow,
                       const policy::Verdict& verdict, Waiting* waiting, const Error* failure) {
  const Client& client = request.client;
  if (HasTooMany(client.requester.uid)) {
    return Refuse(client, flow, Reason::kLimit, "too many latches of one user");
  }
  if (stale_) return Refuse(client, flow, Reason::kSuspectGap, "the SAs cannot be read");
  if (const std::string past = PastSpd(request.fd, facts.mark, flow); !past.empty()) {
    return Refuse(client, flow, Reason::kNoXfrm, past);
  }
  Result<Choice> choice = ChooseOrWait(request, flow, verdict, waiting, failure);
  if (!choice) {
    const Error& why = choice.error();
    if (why.reason == Reason::kNone) return Answer{wire::Verdict::kWait, Reason::kNone, 0, 0};
    // Only where there is nobody to protect it with: an SA of the wrong peer, or a peer that fails
    // to prove who it is, is no reason to go clear.
    if (verdict.permit && IsLack(why.reason)) {
      return GoClear(request, facts, flow, verdict, *verdict.permit);
    }
    return Refuse(client, flow, why.reason, why.ToString());
  }
  const bool was_held = Supersede(facts.cookie);
  if (facts.datagram_udp) kernel_.PushOut(request.fd);
  Result<void> pinned = Pin(request.fd, facts, flow, *choice);
  Flow made = flow;
  if (pinned && facts.datagram_udp) {
    const Result<SocketFacts> connected = ConnectDatagrams(request, facts);
    kernel_.PushOut(request.fd);  // what was begun for the old peer takes nothing more in
    if (!connected) pinned = std::unexpected(connected.error());
    if (connected && connected->local.port != 0) made.local.port = connected->local.port;
  }
  if (pinned) pinned = OpenFilter(was_held, request.fd, facts);
  if (!pinned) {
    Block(kernel_, request.fd, facts, flow.remote.address.family);
    return Refuse(client, flow, pinned.error().reason, pinned.error().ToString());
  }
  Entry entry;
  entry.latch.state = State::kEstablished;
  entry.latch.flow = made;
  FillOwner(entry, client, facts, request.fd_hint, kernel_);
  entry.was_held = was_held;
  Describe(entry, *choice, verdict);
  entry.latch.suspends = Suspends(verdict);
  entry.rule = verdict.rule;
  if (verdict.rule != nullptr) entry.latch.rule = verdict.rule->name;
  // An entry of another reqid may stand there still: then those answers are blocked, no more.
  const Guard guard = FlowGuard(entry.latch, options_.guard_mark, entry.own_sa);
  if (Result<void> held = HoldOver(guard); held) {
    entry.guards.push_back(guard);
  } else if (guard.mode == Mode::kTunnel) {  // with it comes the ban of fragments
    Block(kernel_, request.fd, facts, flow.remote.address.family);
    return Refuse(client, flow, held.error().reason, held.error().ToString());
  }
  const Entry* stored = database_.Insert(std::move(entry));
  if (stored == nullptr) {
    guards_.Drop(guard);
    Block(kernel_, request.fd, facts, flow.remote.address.family);
    return Refuse(client, flow, Reason::kBadRequest, "the socket is latched already");
  }
  return Answer{wire::Verdict::kLatched, Reason::kNone, stored->latch.id, 0};
}

Answer Engine::GoClear(const Request& request, const SocketFacts& facts, const Flow& flow,
                       const policy::Verdict& verdict, const policy::ClearPermit& /*permit*/) {
  const Client& client = request.client;
  const int fd = request.fd;
  if (HasTooMany(client.requester.uid)) {
    return Refuse(client, flow, Reason::kLimit, "too many latches of one user");
  }
  const bool was_held = Supersede(facts.cookie);
  Result<bool> moved = true;
  Result<void> done;
  if (facts.datagram_udp) {
    moved = MoveDatagrams(fd, facts, flow, request.scope);
    if (!moved) done = std::unexpected(moved.error());
  } else {
    done = AllowClear(kernel_, fd, facts, flow);
  }
  if (done) done = OpenFilter(was_held, fd, facts);
  if (done && *moved) done = kernel_.SetMark(fd, facts, 0, options_.guard_mark);
  if (!done) {
    Block(kernel_, fd, facts, flow.remote.address.family);
    return Refuse(client, flow, done.error().reason, done.error().ToString());
  }
  Entry entry;
  entry.latch.state = State::kEstablished;
  entry.latch.flow = flow;
  entry.latch.clear = true;
  entry.was_held = was_held;
  FillOwner(entry, client, facts, request.fd_hint, kernel_);
  entry.rule = verdict.rule;
  if (verdict.rule != nullptr) entry.latch.rule = verdict.rule->name;
  const Entry* stored = database_.Insert(std::move(entry));
  if (stored == nullptr) {
    Block(kernel_, fd, facts, flow.remote.address.family);
    return Refuse(client, flow, Reason::kBadRequest, "the socket is latched already");
  }
  return Answer{wire::Verdict::kLatched, Reason::kNone, stored->latch.id, 0};
}

Answer Engine::Release(const Client& client, int fd, int fd_hint) {
  Result<SocketFacts> facts = kernel_.Inspect(fd);
  if (!facts || !facts->own_netns || (!facts->stream_tcp && !facts->datagram_udp)) {
    return Refuse(client, Flow{}, Reason::kBadRequest, "nothing to release");
  }
  if (facts->datagram_udp) return ReleaseDatagrams(client, fd, fd_hint, *facts);
  // The policies stay on the socket until it is connected anew: closed is the safe side.
  if (const Entry* entry = database_.FindByCookie(facts->cookie)) {
    if (entry->latch.state != State::kListener && facts->tcp_state == kTcpClose) {
      Close(entry->latch.id, Reason::kClosed);
    }
  }
  return Answer{wire::Verdict::kBypass, Reason::kNone, 0, 0};
}

}  // namespace latchkey::broker
