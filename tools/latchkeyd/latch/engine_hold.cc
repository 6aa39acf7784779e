// Unconnected UDP sockets: LISTENER latches whose kernel filter takes in what their peers' SAs
// bring and no more, and whose datagrams leave by SPD entries of their own or not at all.

#include <algorithm>
#include <utility>

#include "policy/request.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/held.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

std::vector<DatagramRegion> PassAll() {
  std::vector<DatagramRegion> regions;
  for (const Family family : {Family::kV4, Family::kV6}) {
    regions.push_back({Prefix{Address::AnyOf(family), 0}, 0, DatagramRegion::Need::kPass});
  }
  return regions;
}

}  // namespace

// From now on the socket takes nothing in and lets nothing out: its program was told that it is not
// to be used.
Answer Engine::Shun(const Client& client, int fd, const SocketFacts& facts, const Flow& flow,
                    const Error& why) {
  (void)kernel_.SetMark(fd, facts, options_.guard_mark, options_.guard_mark);
  Block(kernel_, fd, facts, FamilyToBlock(facts));
  // That is of one family: the filter drops what comes by the other, too.
  if (kernel_.FilterDatagrams(fd, facts, {})) kernel_.ForgetDatagrams(facts.cookie);
  kernel_.Drain(fd);
  return Refuse(client, flow, why.reason, why.ToString());
}

// Packets of all marked sockets of a port meet the same SPD entries: what one may send in clear
// another, held to other rules, could too.
Result<void> Engine::Conflicting(const Entry& entry, const HoldPlan& plan) const {
  for (const uint64_t id : database_.listeners()) {
    const Entry& other = *database_.Find(id);
    if (!other.held || !SharePlace(other.latch.flow.local, entry.latch.flow.local)) continue;
    if (other.policy == entry.policy && other.requester.uid == entry.requester.uid) continue;
    const bool same = other.requester.uid == entry.requester.uid &&
                      policy::SameRules(other.policy, entry.policy) &&
                      other.held->regions == plan.regions && other.guards == plan.guards &&
                      other.held->asked.empty() && plan.asked.empty();
    if (same) continue;
    return Fail(Reason::kConflictSpd, "hold socket",
                "latch " + std::to_string(id) + " holds this port to other rules");
  }
  return {};
}

// Puts a plan in force: nothing leaves but by its entries, nothing comes in but by its regions.
// Where that fails, what it held is in `entry` for the caller to let go.
Result<void> Engine::HoldSocket(Entry& entry, int fd, const SocketFacts& facts,
                                const HoldPlan& plan) {
  if (!entry.held) entry.held.emplace();
  entry.held->regions = plan.regions;
  entry.held->asked = plan.asked;
  entry.held->families = FamiliesOf(facts);
  for (const Guard& guard : plan.guards) {
    if (Result<void> held = guards_.Hold(guard); !held) return held;
    entry.guards.push_back(guard);
  }
  if (Result<void> done = kernel_.SetMark(fd, facts, options_.guard_mark, options_.guard_mark);
      !done) {
    return done;
  }
  if (Result<void> done = kernel_.FilterDatagrams(fd, facts, RegionsOf(*entry.held)); !done) {
    return done;
  }
  SocketPolicy policy;  // in place of what an earlier latch left
  const bool shut = !no_xfrm_.out.empty() && std::ranges::find(entry.held->families, Family::kV4) !=
                                                 entry.held->families.end();
  policy.kind = shut ? SocketPolicy::Kind::kBlock : SocketPolicy::Kind::kClear;
  policy.family = shut ? Family::kV4 : facts.local.address.family;
  if (Result<void> done = kernel_.SetPolicy(fd, facts, policy); !done) return done;
  entry.held->shut = shut;
  kernel_.Drain(fd);
  return {};
}

Answer Engine::Hold(const Client& client, int fd, int fd_hint) {
  Flow flow{Direction::kIn, kProtocolUdp, {}, {}};
  Result<SocketFacts> facts = InspectFlow(fd);
  if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  if (!facts->datagram_udp) return Refuse(client, flow, Reason::kUnsupported, "not UDP");
  const Entry* old = database_.FindByCookie(facts->cookie);
  if (facts->remote.address.family != Family::kNone) {  // connected meanwhile: that decided
    if (old == nullptr) return Answer{wire::Verdict::kBypass, Reason::kNone, 0, 0};
    return Answer{wire::Verdict::kLatched, Reason::kNone, old->latch.id, 0};
  }
  if (old != nullptr && old->held && old->latch.flow.local == facts->local) {
    return Answer{wire::Verdict::kLatched, Reason::kNone, old->latch.id, 0};
  }
  const bool was_held = Supersede(facts->cookie);
  if (facts->local.port == 0) {
    if (Result<void> bound = kernel_.BindAny(fd, *facts); !bound) {
      return Shun(client, fd, *facts, flow, bound.error());
    }
    facts = InspectFlow(fd);
    if (!facts) return Refuse(client, flow, facts.error().reason, facts.error().ToString());
  }
  flow.local = facts->local;
  Result<HoldPlan> plan = PlanHold(*client.policy, system(), facts->local, FamiliesOf(*facts),
                                   options_.guard_mark, client.requester.grants);
  if (!plan) return Shun(client, fd, *facts, flow, plan.error());
  const bool clear = std::ranges::any_of(plan->regions, [](const DatagramRegion& region) {
    return region.need == DatagramRegion::Need::kPass;
  });
  if (client.policy->floor != nullptr && clear) {
    return Shun(
        client, fd, *facts, flow,
        Error{"hold socket", "its request must protect what comes in", Reason::kUnsupported});
  }
  if (!plan->held) return LeaveAlone(client, fd, *facts, flow, {.was_held = was_held});
  if (const std::string past = SpeaksPastSpd(*facts); !past.empty()) {
    return Shun(client, fd, *facts, flow, Error{"hold socket", past, Reason::kNoXfrm});
  }
  Entry entry;
  FillOwner(entry, client, *facts, fd_hint, kernel_);
  entry.latch.state = State::kListener;
  entry.latch.flow = flow;
  Result<void> done = Conflicting(entry, *plan);
  if (!done) {
    Reap(/*thorough=*/true);  // one that was closed a moment ago may still be there
    done = Conflicting(entry, *plan);
  }
  const uint32_t uid = client.requester.uid;
  if (HasTooMany(uid) || !HasShare(uid, plan->regions.size(), 0)) {
    done = Fail(Reason::kLimit, "hold socket", "too many latches of one user");
  }
  if (done) done = HoldSocket(entry, fd, *facts, *plan);
  if (!done) {
    for (const Guard& guard : entry.guards) guards_.Drop(guard);
    if (entry.held) kernel_.ForgetDatagrams(facts->cookie);
    return Shun(client, fd, *facts, flow, done.error());
  }
  Entry* stored = database_.Insert(std::move(entry));
  if (stored == nullptr) {
    return Shun(client, fd, *facts, flow,
                Error{"hold socket", "it is latched", Reason::kBadRequest});
  }
  RefreshHeld(*stored);
  return Answer{wire::Verdict::kLatched, Reason::kNone, stored->latch.id, 0};
}

// A held socket has become a connected one, which its own policy holds to its peer: the filter,
// that cannot be taken off, has nothing more to say.
Result<void> Engine::OpenFilter(bool was_held, int fd, const SocketFacts& facts) {
  return was_held ? kernel_.FilterDatagrams(fd, facts, PassAll()) : Result<void>{};
}

// The SPD asks for something else now. What may leave in clear is worked out anew; whom the program
// was let send to in clear it has to ask about again.
void Engine::Replan(Entry& entry) {
  if (entry.held->regions.empty()) return;  // nothing moves
  const Result<HoldPlan> plan =
      PlanHold(*entry.policy, system(), entry.latch.flow.local, entry.held->families,
               options_.guard_mark, entry.requester.grants);
  if (!plan) {
    observer_.OnWarning("latch " + std::to_string(entry.latch.id) +
                        ": nothing leaves in clear any more: " + plan.error().ToString());
  }
  const std::vector<Guard> wanted = plan ? plan->guards : std::vector<Guard>{};
  std::erase_if(entry.guards, [&](const Guard& each) {
    if (std::ranges::find(wanted, each) != wanted.end()) return false;
    guards_.Drop(each);
    return true;
  });
  for (const Guard& each : wanted) {
    if (std::ranges::find(entry.guards, each) != entry.guards.end()) continue;
    if (Result<void> held = guards_.Hold(each); !held) {
      observer_.OnWarning("latch " + std::to_string(entry.latch.id) +
                          ": what may leave in clear does not: " + held.error().ToString());
      continue;
    }
    entry.guards.push_back(each);
  }
  for (auto& [remote, peer] : entry.held->peers) {
    if (!peer.clear) continue;
    for (const Guard& guard : std::exchange(peer.guards, {})) guards_.Drop(guard);
  }
}

// The socket's own policy lets nothing move, whoever takes away what the SPD has of ours.
void Engine::Shut(Entry& entry) {
  if (const std::optional<int> fd = kernel_.Borrow(entry.hint)) {
    if (Result<SocketFacts> facts = kernel_.Inspect(*fd); facts) {
      Block(kernel_, *fd, *facts, FamilyToBlock(*facts));
    }
    kernel_.GiveBack(*fd);
  } else {
    observer_.OnWarning("latch " + std::to_string(entry.latch.id) +
                        ": its socket is out of reach, and sends what the SPD lets it");
  }
  LetGoOfPeers(entry);
}

// From now on nothing of it moves, as long as it lives. That it has no regions says so: a plan has
// always some.
void Engine::Cease(Entry& entry, const Error& why) {
  observer_.OnWarning("an unconnected UDP socket is held no more, and nothing moves: " +
                      why.ToString());
  if (const std::optional<int> fd = kernel_.Borrow(entry.hint)) {
    if (const Result<SocketFacts> facts = kernel_.Inspect(*fd); facts) {
      Block(kernel_, *fd, *facts, FamilyToBlock(*facts));
    }
    kernel_.GiveBack(*fd);
  }
  kernel_.ForgetDatagrams(entry.hint.cookie);
  for (const Guard& guard : std::exchange(entry.guards, {})) guards_.Drop(guard);
  entry.held->regions.clear();
}

// One that a broker before us held. It takes in nothing until it is held anew; of a `suspect` one
// the administrator may have broken peers that we do not know.
void Engine::AdoptHeld(Entry& entry, bool suspect) {
  kernel_.ForgetDatagrams(entry.hint.cookie);
  entry.guards.clear();
  entry.held.emplace();
  BindBrokenPeers(entry);
  const std::optional<int> fd = kernel_.Borrow(entry.hint);
  Result<void> done = Fail(Reason::kKernelRefused, "hold socket", "it is out of reach");
  if (fd) {
    const Result<SocketFacts> facts = kernel_.Inspect(*fd);
    if (!facts) done = std::unexpected(facts.error());
    if (facts) {
      Result<HoldPlan> plan = PlanHold(*entry.policy, system(), facts->local, FamiliesOf(*facts),
                                       options_.guard_mark, entry.requester.grants);
      if (suspect) plan = Fail(Reason::kSuspectGap, "hold socket", "its record is garbled");
      done = plan ? HoldSocket(entry, *fd, *facts, *plan)
                  : Result<void>(std::unexpected(plan.error()));
    }
    kernel_.GiveBack(*fd);
  }
  entry.held->adopted_at = kernel_.NowMs();
  if (!done) Cease(entry, done.error());
}

}  // namespace latchkey::broker
