// Listeners: RFC 5660's LISTENER latches, and the children they spawn at accept.

#include <algorithm>
#include <utility>

#include "policy/request.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/listener_plan.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
Answer Engine::Listen(const Client& client, int fd, int fd_hint) {
  Flow flow{Direction::kIn, kProtocolTcp, {}, {}};
  Result<SocketFacts> facts = InspectTcp(fd);
  if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  if (const Entry* entry = database_.FindByCookie(facts->cookie)) {
    if (entry->latch.state == State::kListener) {
      return Answer{wire::Verdict::kLatched, Reason::kNone, entry->latch.id, 0};  // a new backlog
    }
    if (facts->tcp_state != kTcpClose) {
      return Refuse(client, flow, Reason::kBadRequest, "the socket is connected");
    }
    Close(entry->latch.id, Reason::kClosed);
  }
  if (facts->local.port == 0) {
    if (Result<void> bound = kernel_.BindAny(fd, *facts); !bound) {
      return Refuse(client, flow, bound.error().reason, bound.error().ToString());
    }
    facts = InspectTcp(fd);
    if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  }
  flow.local = facts->local;
  if (const auto& floor = client.policy->floor) {
    // What waits to be accepted has to have come under an SA, whoever the peer.
    if (client.policy->rules.front().action != policy::Action::kProtect) {
      return Refuse(client, flow, Reason::kUnsupported, "a listener's request must protect");
    }
    Result<ListenerPlan> least = PlanListener(*floor, facts->local, FamiliesOf(*facts), system_spd_,
                                              options_.guard_mark, client.requester.grants);
    if (!least) return Refuse(client, flow, least.error().reason, least.error().ToString());
  }
  Result<ListenerPlan> plan =
      PlanListener(*client.policy, facts->local, FamiliesOf(*facts), system_spd_,
                   options_.guard_mark, client.requester.grants);
  if (!plan) return Refuse(client, flow, plan.error().reason, plan.error().ToString());
  if (Result<void> joined = Join(client, fd, *facts, *plan); !joined) {
    return Refuse(client, flow, joined.error().reason, joined.error().ToString());
  }
  if (!plan->latched) return LeaveAlone(client, fd, *facts, flow, {});
  if (const std::string past = SpeaksPastSpd(*facts);
      !past.empty() && !facts->local.address.IsLoopback()) {
    return Refuse(client, flow, Reason::kNoXfrm, past);
  }
  if (HasTooMany(client.requester.uid)) {
    return Refuse(client, flow, Reason::kLimit, "too many latches of one user");
  }

  Entry entry;
  FillOwner(entry, client, *facts, fd_hint, kernel_);
  entry.latch.state = State::kListener;
  entry.latch.flow = flow;
  SocketPolicy policy;
  policy.kind = plan->pure ? SocketPolicy::Kind::kRequireIn : SocketPolicy::Kind::kClear;
  policy.protocol = plan->protocol;
  policy.mode = plan->mode;
  policy.family = plan->pure ? plan->socket_family : facts->local.address.family;
  bool ours = false;  // the policy that it has
  const auto undo = [&](const Error& error) {
    for (const Guard& guard : entry.guards) guards_.Drop(guard);
    if (ours) {
      SocketPolicy none;
      none.kind = SocketPolicy::Kind::kClear;
      none.family = policy.family;
      (void)kernel_.SetPolicy(fd, *facts, none);
    }
    return Refuse(client, flow, error.reason, error.ToString());
  };
  for (const Guard& guard : plan->guards) {
    if (Result<void> held = guards_.Hold(guard); !held) return undo(held.error());
    entry.guards.push_back(guard);
  }
  if (Result<void> done = kernel_.SetPolicy(fd, *facts, policy); !done) return undo(done.error());
  ours = (facts->mark & options_.guard_mark) == 0;  // else a latch's that is gone: it stays blocked
  // Where it listens already, whose child bears the mark has come under all this, from the SYN on
  // (with SYN cookies from the ACK on).
  const bool listened = facts->tcp_state == kTcpListen;
  if (listened) {
    if (Result<void> done = kernel_.AwaitArrivals(); !done) return undo(done.error());
  }
  if (Result<void> done = kernel_.SetMark(fd, *facts, options_.guard_mark, options_.guard_mark);
      !done) {
    return undo(done.error());
  }

  Entry* stored = database_.Insert(std::move(entry));
  if (stored == nullptr) {
    return Refuse(client, flow, Reason::kBadRequest, "the socket is latched already");
  }
  if (listened && (facts->mark & options_.guard_mark) != 0) {
    // Of a latch that is gone: so do those bear it that came since.
    const std::set<Prefix> all{Everything(Family::kV4), Everything(Family::kV6)};
    if (!NoteQueued(*stored, all, stored->suspects)) stored->blind = true;
  }
  RefreshListener(*stored);
  return Answer{wire::Verdict::kLatched, Reason::kNone, stored->latch.id, 0};
}

// Which of several at one place (SO_REUSEPORT) gets a client is chance: they are latched alike, or
// another is refused. (Of a wildcard and an address the kernel takes the address; rules may tell
// them apart.)
Result<void> Engine::Join(const Client& client, int fd, const SocketFacts& facts,
                          const ListenerPlan& plan) {
  if (!kernel_.SharesPort(fd)) return {};
  const auto unlike = [&](uint64_t id) {
    const Entry& other = *database_.Find(id);
    if (other.held || other.latch.flow.local != facts.local) return false;
    // Requests hold for the children of all (RequestFor).
    if (client.policy->floor != nullptr || other.policy->floor != nullptr) return !plan.latched;
    const Result<ListenerPlan> theirs =
        PlanListener(*other.policy, facts.local, FamiliesOf(facts), system_spd_,
                     options_.guard_mark, other.requester.grants);
    return !theirs || *theirs != plan;
  };
  if (std::ranges::any_of(database_.listeners(), unlike)) {
    Reap(/*thorough=*/true);  // one that was closed a moment ago may still be there
    const auto& listeners = database_.listeners();
    if (const auto found = std::ranges::find_if(listeners, unlike); found != listeners.end()) {
      return Fail(plan.latched ? Reason::kConflictSpd : Reason::kUnlatchedListener, "listen",
                  "latch " + std::to_string(*found) + " listens there by other rules");
    }
  }
  if (!plan.latched) return {};
  const Result<std::vector<LiveSocket>> live = kernel_.LiveSockets();
  if (!live) return std::unexpected(live.error());
  const auto unlatched = [&](const LiveSocket& other) {
    return other.protocol == kProtocolTcp && other.tcp_state == kTcpListen &&
           other.local == facts.local && other.cookie != facts.cookie &&
           (other.mark & options_.guard_mark) == 0 && !database_.FindByCookie(other.cookie);
  };
  if (std::ranges::any_of(*live, unlatched)) {
    return Fail(Reason::kUnlatchedListener, "listen", "one that is not latched listens there");
  }
  return {};
}

// Of several that share the port (SO_REUSEPORT) the oldest: a child may have queued at it.
const Entry* Engine::ListenerOf(const Flow& flow) const {
  const Entry* exact = nullptr;
  const Entry* wildcard = nullptr;
  const auto older = [](const Entry* found, const Entry& other) {
    return found != nullptr && found->created <= other.created ? found : &other;
  };
  for (const uint64_t id : database_.listeners()) {
    const Entry& entry = *database_.Find(id);
    const SocketAddress& bound = entry.latch.flow.local;
    if (entry.held || bound.port != flow.local.port) continue;
    if (bound.address == flow.local.address) exact = older(exact, entry);
    if (bound.address.IsAny() && (bound.address.family == flow.local.address.family ||
                                  bound.address.family == Family::kV6)) {
      wildcard = older(wildcard, entry);
    }
  }
  return exact != nullptr ? exact : wildcard;
}

// The request that a flow's listener made, which holds for its children; null: it made none. Of
// several that share its place (SO_REUSEPORT) nobody can say whose child it is: one that made no
// request takes the others'.
Result<std::shared_ptr<const policy::Policy>> Engine::RequestFor(const Client& client,
                                                                 const Flow& flow) {
  if (client.policy->floor != nullptr) return nullptr;  // it is held to it already
  for (const bool reaped : {false, true}) {
    // A listener that was closed a moment ago may still be there.
    if (reaped) Reap(/*thorough=*/false);
    const Entry* listener = ListenerOf(flow);
    std::shared_ptr<const policy::Policy> found;
    bool several = false;
    for (const uint64_t id : database_.listeners()) {
      const Entry& other = *database_.Find(id);
      if (listener == nullptr || other.held || other.policy->floor == nullptr ||
          other.latch.flow.local != listener->latch.flow.local) {
        continue;
      }
      several = several || (found != nullptr && found->request != other.policy->request);
      found = other.policy;
    }
    if (several) continue;
    // Whoever accepts is held to the policy of his own session.
    if (found != nullptr && found->floor != client.policy) {
      return policy::HeldTo(found->request, client.policy);
    }
    return found;
  }
  return Fail(Reason::kUnsupported, "accept", "listeners of one port made different requests");
}

Answer Engine::AttemptAccept(const Request& request, Waiting* waiting, const Error* failure) {
  const Client& client = request.client;
  const int fd = request.fd;
  Flow flow{Direction::kIn, kProtocolTcp, {}, {}};
  Result<SocketFacts> facts = InspectTcp(fd);
  if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  flow.local = facts->local;
  flow.remote = facts->remote;
  Answer answer;
  if (flow.remote.address.family == Family::kNone) {
    // Reset before it was accepted: with no peer there is nothing to verify.
    answer = Refuse(client, flow, Reason::kClosed, "the peer is gone");
  } else if (const Entry* old = database_.FindByCookie(facts->cookie)) {
    return Answer{wire::Verdict::kLatched, Reason::kNone, old->latch.id, 0};
  } else if (Result<std::shared_ptr<const policy::Policy>> wish = RequestFor(client, flow); !wish) {
    answer = Refuse(client, flow, wish.error().reason, wish.error().ToString());
  } else if (*wish != nullptr) {
    Request held = request;
    held.client.policy = *wish;
    return AttemptAccept(held, waiting, failure);
  } else {
    const uint32_t stays_by = StaysBy(fd, facts->mark & ~options_.guard_mark, flow);
    const policy::Verdict verdict =
        policy::Decide(system(), *client.policy, client.requester, flow, stays_by != 0);
    switch (verdict.outcome) {
      case policy::Outcome::kProtect:
        answer = AcceptProtected(request, *facts, flow, verdict, waiting, failure);
        break;
      case policy::Outcome::kBypass:
        answer = LeaveAlone(client, fd, *facts, flow, {});
        break;
      case policy::Outcome::kLocal:
        answer = LeaveAlone(client, fd, *facts, flow, {.stays_by = stays_by});
        break;
      case policy::Outcome::kClear:
        answer = GoClear(request, *facts, flow, verdict, *verdict.permit);
        break;
      case policy::Outcome::kRefuse:
        answer = Refuse(client, flow, verdict.reason, DescribeRule(verdict.rule));
        break;
    }
  }
  if (answer.verdict == wire::Verdict::kRefused) {
    const Family family =
        flow.local.address.family == Family::kNone ? Family::kV4 : flow.local.address.family;
    Block(kernel_, fd, *facts, family);
  }
  return answer;
}

// How many identities may have stood behind what lies in a child's queue.
size_t Engine::IdentitiesBehind(const Entry* listener, const SocketFacts& facts, const Flow& flow,
                                const policy::Verdict& verdict) const {
  const bool by_reqid = HoldsTunnels(listener, verdict, flow.remote.address);
  if (listener == nullptr) {
    return sas_.IdentitiesSince(flow, kernel_.NowMs() - kImplicitQueueMs, by_reqid).size();
  }
  return IdentitiesAt(*listener, flow, by_reqid, listener->elders.contains(facts.cookie)).size();
}

// True when a listener took in nothing of a child but under an SA: as its own session's rules have
// it, which need not be those of whoever accepts (it was handed on).
bool Engine::AskedForSa(const Entry& listener, const Client& client, uint64_t cookie,
                        const Flow& flow) const {
  if (listener.policy == client.policy) return true;
  const policy::Verdict theirs =
      policy::Decide(system(), *listener.policy, listener.requester, flow, /*same_host=*/false);
  return theirs.outcome == policy::Outcome::kProtect &&
         (!theirs.permit || (KeepsClearOut(listener, flow.remote.address) &&
                             !listener.clear_children.contains(cookie)));
}

Answer Engine::AcceptProtected(const Request& request, const SocketFacts& facts, const Flow& flow,
                               const policy::Verdict& verdict, Waiting* waiting,
                               const Error* failure) {
  const Client& client = request.client;
  const Entry* listener = ListenerOf(flow);
  // Children have the mark from their listener, as it was when their SYN came.
  const bool early = listener != nullptr && (facts.mark & options_.guard_mark) == 0;
  // Where only the system asks, its own SPD entry has kept clear packets out: the listener needs no
  // latch of its own.
  if (early && verdict.implicit) listener = nullptr;
  if (listener == nullptr && !verdict.implicit) {
    return Refuse(client, flow, Reason::kUnlatchedListener, DescribeRule(verdict.rule));
  }
  if (verdict.rule != nullptr && !verdict.rule->remote_port.empty()) {
    return Refuse(client, flow, Reason::kUnsupported, "a rule by the client's port");
  }
  if (listener != nullptr && listener->suspect_children > 0) {
    --database_.Find(listener->latch.id)->suspect_children;
    return Refuse(client, flow, Reason::kSuspectGap, "queued while no broker watched");
  }
  if (listener != nullptr) {
    if (database_.Find(listener->latch.id)->suspects.erase(facts.cookie) > 0) {
      return Refuse(client, flow, Reason::kSuspectGap, "queued while nothing asked for an SA");
    }
    if (listener->blind) {
      return Refuse(client, flow, Reason::kSuspectGap, "in clear or not, who knows");
    }
  }
  if (early && listener != nullptr) {
    const bool keyed = !sas_.Carrying(flow, false).empty() && !sas_.Carrying(flow, true).empty();
    if (verdict.permit && !keyed) {
      return GoClear(request, facts, flow, verdict, *verdict.permit);
    }
    return Refuse(client, flow, Reason::kUnlatchedListener,
                  "it came before its listener was latched");
  }
  if (verdict.permit && listener != nullptr) {
    Entry& parent = *database_.Find(listener->latch.id);
    // It began in clear, so it stays so: SAs that came later do not vouch for what it has received.
    if (parent.clear_children.erase(facts.cookie) > 0) {
      return GoClear(request, facts, flow, verdict, *verdict.permit);
    }
    if (!KeepsClearOut(parent, flow.remote.address)) {
      if (sas_.Carrying(flow, false).empty() || sas_.Carrying(flow, true).empty()) {
        return GoClear(request, facts, flow, verdict, *verdict.permit);
      }
      return Refuse(client, flow, Reason::kSuspectGap, "there is an SA, and nothing asked for it");
    }
  }
  if (listener != nullptr && !verdict.implicit &&
      !AskedForSa(*listener, client, facts.cookie, flow)) {
    return Refuse(client, flow, Reason::kUnlatchedListener, "other rules latched its listener");
  }
  if (const std::string past = CamePastSpd(listener, facts.cookie, flow.remote.address.family);
      !past.empty()) {
    return Refuse(client, flow, Reason::kNoXfrm, past);
  }
  // What lies in the child's queue may have come under any SA that covered the peer's address
  // since the socket began to listen: only one identity may ever have stood behind them.
  IdentifyAgain(flow);
  if (Pending(flow) && MayWait(waiting) && Wait(*waiting, flow, verdict, /*pending=*/true)) {
    return Answer{wire::Verdict::kWait, Reason::kNone, 0, 0};
  }
  size_t identities = IdentitiesBehind(listener, facts, flow, verdict);
  const auto of_port = [&](uint64_t id) {
    const Entry& other = *database_.Find(id);
    return !other.held && other.latch.flow.local.port == flow.local.port;
  };
  if (identities > 1 && listener != nullptr &&
      std::ranges::count_if(database_.listeners(), of_port) > 1) {
    // One that was closed a moment ago may still be taken for its successor.
    Reap(/*thorough=*/true);
    listener = ListenerOf(flow);
    if (listener == nullptr) {
      return Refuse(client, flow, Reason::kUnlatchedListener, "its listener was closed");
    }
    identities = IdentitiesBehind(listener, facts, flow, verdict);
  }
  if (identities > 1) {
    return Refuse(client, flow, Reason::kAmbiguousPeer,
                  std::to_string(identities) + " identities since it listens");
  }
  return Protect(request, facts, flow, verdict, waiting, failure);
}

}  // namespace latchkey::broker
