// What waits for keys: requests that are not decided yet.

#include <algorithm>
#include <set>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// What implicit latches have no rule to say.
constexpr int64_t kAcquireMs = 5'000;

}  // namespace

Answer Engine::Begin(Request request) {
  if (stale_) OnEvents({});
  Waiting waiting;
  waiting.request = std::move(request);
  Answer answer = Attempt(waiting.request, &waiting, nullptr);
  if (answer.verdict != wire::Verdict::kWait) return answer;
  answer.ticket = next_ticket_++;
  waiting_.emplace(answer.ticket, std::move(waiting));
  return answer;
}

bool Engine::MayWait(const Waiting* waiting) const {
  return waiting != nullptr && (waiting->deadline == 0 || kernel_.NowMs() < waiting->deadline);
}

Result<void> Engine::Wait(Waiting& waiting, const Flow& flow, const policy::Verdict& verdict,
                          bool pending) {
  const int64_t now = kernel_.NowMs();
  if (!pending && waiting.negotiation == 0) {
    // Asked only here: where there are SAs it is one peer's, and the common case costs nothing.
    if (kernel_.IsBroadcast(flow.remote.address)) {
      return Fail(Reason::kUnsupported, "acquire SA", "a group has no SA of one peer");
    }
    AcquireRequest request;
    request.flow = flow;
    if (verdict.rule != nullptr) request.child = verdict.rule->child;
    request.demand = verdict.demand;
    Result<uint64_t> ticket = keys_.Acquire(request);
    if (!ticket) {
      // To a flow that is not there yet it is all one why nobody can be asked.
      Error why = ticket.error();
      if (why.reason == Reason::kKmLost) why.reason = Reason::kNoSa;
      return std::unexpected(std::move(why));
    }
    waiting.negotiation = *ticket;
    if (verdict.demand.unique) waiting.asked = flow;
  }
  if (waiting.deadline == 0) {
    int64_t patience = kAcquireMs;
    if (waiting.request.accept) {
      patience = options_.identify_ms;
    } else if (verdict.rule != nullptr) {
      patience = verdict.rule->acquire_timeout.count();
    }
    waiting.deadline = now + patience;
    if (waiting.request.nonblocking) waiting.larval_at = now + options_.inline_ms;
  }
  return {};
}

void Engine::Cancel(uint64_t ticket) {
  auto it = waiting_.find(ticket);
  if (it == waiting_.end()) return;
  if (it->second.negotiation != 0) keys_.Abandon(it->second.negotiation);
  const std::optional<Flow> asked = it->second.asked;
  waiting_.erase(it);
  if (asked) keys_.Release(*asked);
}

// Decides a waiting request if it can be decided now; for good with a `failure`.
void Engine::Deliver(uint64_t ticket, const Error* failure) {
  auto it = waiting_.find(ticket);
  if (it == waiting_.end()) return;
  const Answer answer = Attempt(it->second.request, &it->second, failure);
  if (answer.verdict == wire::Verdict::kWait) return;
  Entry* latched = database_.Find(answer.latch);
  if (latched != nullptr && !latched->latch.clear) {
    latched->asked = std::exchange(it->second.asked, std::nullopt);
  }
  Cancel(ticket);
  observer_.OnAnswer(ticket, answer);
}

void Engine::RetryWaiting() {
  std::vector<uint64_t> tickets;
  tickets.reserve(waiting_.size());
  for (const auto& [ticket, waiting] : waiting_) tickets.push_back(ticket);
  for (const uint64_t ticket : tickets) Deliver(ticket, nullptr);
  for (const uint64_t id : std::set(larvals_)) {
    if (Entry* entry = database_.Find(id)) TryLarval(*entry, nullptr);
  }
}

std::optional<int64_t> Engine::NextDue() const {
  std::optional<int64_t> due;
  const auto at = [&due](int64_t when) {
    if (when != 0 && (!due || when < *due)) due = when;
  };
  for (const auto& [ticket, waiting] : waiting_) {
    at(waiting.deadline);
    at(waiting.larval_at);
  }
  for (const uint64_t id : larvals_) at(database_.Find(id)->deadline);
  return due;
}

void Engine::OnTime() {
  const int64_t now = kernel_.NowMs();
  std::vector<uint64_t> over;
  std::vector<uint64_t> larval;
  for (const auto& [ticket, waiting] : waiting_) {
    if (now >= waiting.deadline) {
      over.push_back(ticket);
    } else if (waiting.larval_at != 0 && now >= waiting.larval_at) {
      larval.push_back(ticket);
    }
  }
  for (const uint64_t ticket : over) {
    const bool negotiating = waiting_.at(ticket).negotiation != 0;
    const Error late = negotiating
                           ? Error{"acquire SA", "no answer in time", Reason::kAcquireTimeout}
                           : Error{"identify peer", "no answer in time", Reason::kPeerUnknown};
    Deliver(ticket, &late);
  }
  for (const uint64_t ticket : larval) {
    const auto it = waiting_.find(ticket);
    if (it == waiting_.end()) continue;
    Waiting& waiting = it->second;
    if (!waiting.request.peer) {
      GoLarval(ticket);
      continue;
    }
    // Nobody waits any more, but the keys may come for the next datagram.
    const Error late{"acquire SA", "not within the moment", Reason::kAcquireTimeout};
    waiting.negotiation = 0;
    waiting.deadline = now;
    Deliver(ticket, &late);
  }
  for (const uint64_t id : std::set(larvals_)) {
    Entry* entry = database_.Find(id);
    if (entry == nullptr || now < entry->deadline) continue;
    const Error late{"acquire SA", "no answer in time", Reason::kAcquireTimeout};
    TryLarval(*entry, &late);
  }
}

}  // namespace latchkey::broker
