// LARVAL latches: of non-blocking connects that wait for keys (RFC 5660, section 2.3, leaves that
// state to us).

#include <algorithm>
#include <set>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// How long the entry that let a SYN go stays behind: what the kernel held back leaves through it.
constexpr int64_t kFlushMs = 1'000;

}  // namespace

// A reqid that no SA has: nothing leaves or comes under it.
uint32_t Engine::PlaceholderReqid() const {
  uint32_t reqid = 0xffff'fff0;
  const auto taken = [this](uint32_t number) {
    return std::ranges::any_of(
        sas_.all(), [number](const auto& each) { return each.second.sa.reqid == number; });
  };
  while (taken(reqid)) --reqid;
  return reqid;
}

// Puts in place what keeps a flow's packets back, in and out, while it waits, and connects one of
// datagrams. Returns its local end; after an error `guard` is not held.
Result<SocketAddress> Engine::HoldBack(const Request& request, const SocketFacts& facts,
                                       const Guard& guard, bool was_held) {
  const int fd = request.fd;
  if (Result<void> done = kernel_.SetMark(fd, facts, options_.guard_mark, options_.guard_mark);
      !done) {
    return std::unexpected(done.error());
  }
  SocketPolicy policy;
  policy.family = request.remote.address.family;
  policy.reqid = guard.reqid;
  // The first takes away what an earlier flow of the socket left.
  for (const auto kind : {SocketPolicy::Kind::kClear, SocketPolicy::Kind::kAwaitIn}) {
    policy.kind = kind;
    if (Result<void> done = kernel_.SetPolicy(fd, facts, policy); !done) {
      return std::unexpected(done.error());
    }
  }
  // An entry that only lets an earlier flow's first packets go stands in its place no longer.
  std::erase_if(lingering_, [&](const auto& each) {
    const bool in_place = each.second.selector == guard.selector && each.second != guard;
    if (in_place) guards_.Drop(each.second);
    return in_place;
  });
  Result<void> done = guards_.Hold(guard);
  if (!done) return std::unexpected(done.error());
  Result<SocketFacts> ready = facts;
  if (done = OpenFilter(was_held, fd, facts); !done) {
    ready = std::unexpected(done.error());
  } else {
    // From here on packets are held back instead of being lost.
    if (larvals_.empty()) kernel_.HoldPackets(true);
    if (facts.datagram_udp) ready = ConnectDatagrams(request, facts);
  }
  if (ready) return ready->local;
  guards_.Drop(guard);
  EndHolds();
  return std::unexpected(ready.error());
}

// The program goes on and gets EINPROGRESS: an SPD entry whose SA never comes keeps its SYN back,
// and its socket takes nothing in, until TryLarval() puts the real pins in place.
void Engine::GoLarval(uint64_t ticket) {
  auto it = waiting_.find(ticket);
  if (it == waiting_.end()) return;
  const Request& request = it->second.request;
  const uint32_t reqid = PlaceholderReqid();
  Entry entry;
  const Family family = request.remote.address.family;
  const Result<SocketFacts> facts = InspectFlow(request.fd);
  const bool datagrams = facts && facts->datagram_udp;
  const uint8_t protocol = datagrams ? kProtocolUdp : kProtocolTcp;
  const Guard guard = LarvalGuard(request.remote, protocol, reqid, options_.guard_mark);
  bool was_held = false;
  if (datagrams) {
    was_held = Supersede(facts->cookie);
    kernel_.PushOut(request.fd);
  }
  const Result<SocketAddress> local =
      facts ? HoldBack(request, *facts, guard, was_held) : std::unexpected(facts.error());
  if (!local) {
    if (facts) Block(kernel_, request.fd, *facts, family);
    const SocketAddress own = facts ? facts->local : SocketAddress{};
    const Answer refused =
        Refuse(request.client, Flow{Direction::kOut, protocol, own, request.remote},
               local.error().reason, local.error().ToString());
    Cancel(ticket);
    observer_.OnAnswer(ticket, refused);
    return;
  }
  entry.guards.push_back(guard);
  entry.latch.state = State::kLarval;
  entry.latch.flow = Flow{Direction::kOut, protocol, *local, request.remote};
  entry.latch.reqid = reqid;
  FillOwner(entry, request.client, *facts, request.fd_hint, kernel_);
  entry.was_held = was_held;
  entry.deadline = it->second.deadline;
  entry.negotiation = it->second.negotiation;
  entry.asked = it->second.asked;
  const Entry* stored = database_.Insert(std::move(entry));
  Answer answer{wire::Verdict::kLarval, Reason::kNone, 0, 0};
  if (stored == nullptr) {
    guards_.Drop(guard);
    Block(kernel_, request.fd, *facts, family);
    EndHolds();
    answer = Refuse(request.client, Flow{Direction::kOut, protocol, *local, request.remote},
                    Reason::kBadRequest, "the socket is latched already");
  } else {
    answer.latch = stored->latch.id;
    it->second.negotiation = 0;  // the latch has it now
    it->second.asked.reset();
    larvals_.insert(stored->latch.id);
  }
  Cancel(ticket);
  observer_.OnAnswer(ticket, answer);
}

void Engine::TryLarval(Entry& entry, const Error* failure) {
  const std::optional<int> fd = stale_ ? std::nullopt : kernel_.Borrow(entry.hint);
  if (!fd) {
    // Closed, and reaped soon; or out of reach, and then it can never be pinned.
    if (failure != nullptr) Break(entry, failure->reason);
    return;
  }
  Result<SocketFacts> facts = InspectFlow(*fd);
  Flow flow = entry.latch.flow;
  if (facts && facts->local.address.family == flow.remote.address.family &&
      !facts->local.address.IsAny()) {
    flow.local = facts->local;
  } else if (flow.local.address.family != flow.remote.address.family ||
             flow.local.address.IsAny()) {
    flow.local.address = kernel_.SourceAddress(flow.remote.address, 0).value_or(flow.local.address);
  }
  const policy::Verdict verdict =
      policy::Decide(system(), *entry.policy, entry.requester, flow, /*same_host=*/false);
  Result<Choice> choice =
      std::unexpected(Error{"decide", DescribeRule(verdict.rule), verdict.reason});
  if (verdict.outcome == policy::Outcome::kProtect) choice = ChooseSa(flow, verdict.demand);
  const std::string past = choice && facts ? PastSpd(*fd, facts->mark, flow) : "";
  if (!past.empty()) choice = std::unexpected(Error{"find SA", past, Reason::kNoXfrm});
  const bool lacking = !choice && choice.error().reason == Reason::kNoSa;
  const bool forgotten = !choice && choice.error().reason == Reason::kKmLost;
  const bool pending = verdict.outcome == policy::Outcome::kProtect && !choice && Pending(flow) &&
                       kernel_.NowMs() < entry.deadline;
  if (pending || ((lacking || forgotten) && failure == nullptr)) return kernel_.GiveBack(*fd);
  Reason why = choice ? Reason::kNone : choice.error().reason;
  if (lacking || (forgotten && !IsLack(failure->reason))) why = failure->reason;
  Result<void> done;
  if (!facts) done = std::unexpected(facts.error());
  if (done && choice) done = Pin(*fd, *facts, flow, *choice);
  const bool clear = !choice && verdict.permit && IsLack(why);
  if (done && clear) done = AllowClear(kernel_, *fd, *facts, flow);
  if (done && clear) done = kernel_.SetMark(*fd, *facts, 0, options_.guard_mark);
  if (!done || (!choice && !clear)) {
    kernel_.GiveBack(*fd);
    Break(entry, done ? why : done.error().reason);
    return;
  }
  const uint32_t placeholder = entry.latch.reqid;
  entry.latch.flow = flow;
  entry.rule = verdict.rule;
  if (verdict.rule != nullptr) entry.latch.rule = verdict.rule->name;
  entry.latch.suspends = !clear && Suspends(verdict);
  entry.latch.clear = clear;
  entry.latch.reqid = 0;
  if (choice) Describe(entry, *choice, verdict);
  EndLarval(entry, placeholder);
  if (choice) {
    const Guard guard = FlowGuard(entry.latch, options_.guard_mark, entry.own_sa);
    if (HoldOver(guard)) entry.guards.push_back(guard);
    // The entry of an earlier flow to the same server, which lingers or is another latch's, may
    // have been asked before ours and have kept the SYN back.
    guards_.LetGo(flow.remote);
  }
  kernel_.GiveBack(*fd);
  database_.SetState(entry, State::kEstablished, Reason::kNone);
}

// The waiting is over. What the kernel kept back leaves under the latch's reqid where it has one.
void Engine::EndLarval(Entry& entry, std::optional<uint32_t> placeholder) {
  if (entry.negotiation != 0) keys_.Abandon(std::exchange(entry.negotiation, 0));
  entry.deadline = 0;
  const Latch& latch = entry.latch;
  const bool was_larval = larvals_.erase(latch.id) > 0;
  const std::vector<Guard> held = std::exchange(entry.guards, {});
  for (const Guard& guard : held) {
    if (!placeholder || latch.clear || guard.reqid != *placeholder) {
      guards_.Drop(guard);
      continue;
    }
    Guard real = guard;
    real.reqid = latch.reqid;
    real.action = RequireAction(latch.protection.protocol);
    real.mode = latch.protection.mode;
    real.ends = EndsOf(latch.protection, latch.peering);
    // Another's SYN that the same entry keeps back may not leave under an SA that is not its own:
    // then ours has to come again, by its socket's policy.
    const bool leaned_on = std::ranges::any_of(larvals_, [&](uint64_t id) {
      const std::vector<Guard>& guards = database_.Find(id)->guards;
      return std::ranges::find(guards, guard) != guards.end();
    });
    const bool renewed = !leaned_on && RenewForAll(guard, real);
    lingering_.emplace(kernel_.NowMs() + kFlushMs, renewed ? real : guard);
  }
  // The entry of an earlier flow to the same server, which lingers, may have been asked before
  // ours.
  std::set<uint32_t> reqids = {placeholder.value_or(latch.reqid)};
  for (const auto& [until, guard] : lingering_) {
    const bool there = guard.selector.destination.Contains(latch.flow.remote.address) &&
                       guard.selector.destination_port == latch.flow.remote.port;
    if (guard.out && Requires(guard.action) && there) reqids.insert(guard.reqid);
  }
  const Address& remote = latch.flow.remote.address;
  Address local = latch.flow.local.address;
  if (local.family != remote.family || local.IsAny()) {  // closed before it was looked at
    local = kernel_.SourceAddress(remote, 0).value_or(local);
  }
  for (const uint32_t reqid : reqids) {
    kernel_.DropLarval(local, remote, SaProtocol::kEsp, reqid, options_.guard_mark);
  }
  if (was_larval) EndHolds();
}

// True when a latch holds an entry of this one's selector and mark, under whatever reqid.
bool Engine::Leaned(const Guard& guard) const {
  return std::ranges::any_of(database_.entries(), [&guard](const auto& each) {
    bool leaned = false;
    EachGuard(each.second, [&](const Guard& held) { leaned = leaned || SamePlace(held, guard); });
    return leaned;
  });
}

// Holds an entry in whose place one under another reqid may stand that only lingers: what that is
// for is over, and an SA of the same peer will do.
Result<void> Engine::HoldOver(const Guard& guard) {
  Result<void> held = guards_.Hold(guard);
  if (held || held.error().reason != Reason::kConflictSpd) return held;
  if (LetAnswersGo(guard)) return guards_.Hold(guard);
  if (Leaned(guard)) return held;
  const auto lingers = std::ranges::find_if(
      lingering_, [&guard](const auto& each) { return SamePlace(each.second, guard); });
  if (lingers == lingering_.end() || !RenewForAll(Guard(lingers->second), guard)) return held;
  return guards_.Hold(guard);
}

// Changes the reqid of an SPD entry of ours, whoever needs it.
bool Engine::RenewForAll(const Guard& from, const Guard& to) {
  if (!guards_.Renew(from, to)) return false;
  for (auto& [id, entry] : database_.entries()) {
    EachGuard(entry, [&](Guard& guard) {
      if (guard == from) guard = to;
    });
  }
  for (auto& [until, guard] : lingering_) {
    if (guard == from) guard = to;
  }
  return true;
}

}  // namespace latchkey::broker
