#include "tools/latchkeyd/keymgr/vici/vici.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <utility>

#include "tools/latchkeyd/keymgr/vici/own.h"

namespace latchkey::broker {
namespace {

using vici::Packet;
using vici::PacketType;

constexpr int64_t kShortestBackoffMs = 100;
constexpr int64_t kLongestBackoffMs = 2'000;
constexpr int64_t kGreetingMs = 10'000;
// Configurations read this short a time ago need not be read again to say that none fits.
constexpr int64_t kFreshMs = 1'000;

constexpr const char* kEventNames[] = {"child-updown", "child-rekey", "ike-updown", "ike-rekey",
                                       "ike-update",   "log",         "list-conn",  "list-cert"};

int64_t MonotonicMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ViciKeyManager::ViciKeyManager(Options options)
    : options_(std::move(options)),
      poll_(epoll_create1(EPOLL_CLOEXEC)),
      timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
      negotiations_(options_.path,
                    [this](int fd, uint64_t tag, bool write) { Watch(fd, tag, write); }) {
  if (!options_.now_ms) options_.now_ms = MonotonicMs;
  // Unlike those of a broker before us.
  next_own_ = static_cast<uint32_t>(time(nullptr)) % 1'000'000'000;
  Watch(timer_.get(), kTimerTag, false);
  Connect();
  Finally();
}

void ViciKeyManager::Watch(int fd, uint64_t tag, bool write) {
  epoll_event event{};
  event.events = write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = tag;
  if (epoll_ctl(poll_.get(), EPOLL_CTL_MOD, fd, &event) == 0 || errno != ENOENT) return;
  epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void ViciKeyManager::Connect() {
  retry_at_ = 0;
  int error = 0;
  Result<vici::Connection> events = vici::Connection::Open(options_.path, error);
  if (!events) return Lose(events.error().step + ": " + events.error().value, error);
  Result<vici::Connection> sas = vici::Connection::Open(options_.path, error);
  if (!sas) return Lose(sas.error().step + ": " + sas.error().value, error);
  events_ = std::move(*events);
  sas_ = std::move(*sas);
  events_confirmed_ = sas_confirmed_ = 0;
  greeted_by_ = Now() + kGreetingMs;
  Result<void> sent;
  for (const char* name : kEventNames) {
    if (sent) sent = events_.Send({PacketType::kRegister, name, {}});
  }
  if (sent) sent = sas_.Send({PacketType::kRegister, "list-sa", {}});
  if (!sent) return Lose(sent.error().step + ": " + sent.error().value, EPIPE);
  Watch(events_.fd(), kEventsTag, events_.wants_write());
  Watch(sas_.fd(), kSasTag, sas_.wants_write());
}

// Nothing that happens between the events that charon tells and the first list can be missed:
// the list is asked for when all events are registered for.
void ViciKeyManager::Greeted() {
  if (events_confirmed_ < std::size(kEventNames) || sas_confirmed_ == 0) return;
  if (link_ == Link::kUp) return;
  link_ = Link::kUp;
  ever_up_ = true;
  greeted_by_ = 0;
  backoff_ms_ = 0;
  problem_.clear();
  Log("charon is connected");
  mirror_.Reconnected();
  first_list_over_ = false;
  // The configurations first: mirror.h. list-sas follows when they are there.
  conns_wanted_ = sas_wanted_ = version_wanted_ = true;
  AskConns();
}

void ViciKeyManager::Lose(const std::string& why, int error) {
  // Too many wait for charon to accept them: it is there.
  const bool busy = error == EAGAIN;
  const bool tell = !busy && link_ != Link::kDown;
  if (!busy) {
    link_ = Link::kDown;
    error_ = error;
    // A host that has no charon is nothing to tell of.
    if (problem_ != why && !absent()) Log("charon cannot be asked: " + why);
    problem_ = why;
  }
  events_ = {};
  sas_ = {};
  greeted_by_ = 0;
  command_.clear();
  listing_ = false;
  conns_wanted_ = sas_wanted_ = version_wanted_ = false;
  conns_coming_.clear();
  conns_at_.reset();
  asked_.clear();
  being_asked_.clear();
  denied_.clear();
  leaving_.clear();
  dying_.clear();
  gone_.clear();
  backoff_ms_ = std::clamp(backoff_ms_ * 2, kShortestBackoffMs, kLongestBackoffMs);
  retry_at_ = Now() + backoff_ms_;
  if (busy) return;
  negotiations_.Lose({"negotiate", why, LostReason()});
  LoseQuestions();
  LoseOwn();
  for (const auto& [ticket, deferred] : std::exchange(deferred_, {})) {
    Acquired(ticket, {"acquire SA", why, LostReason()});
  }
  if (tell) Changed();
}

Reason ViciKeyManager::LostReason() const {
  return ever_up_ || error_ != ENOENT ? Reason::kKmLost : Reason::kNoChild;
}

void ViciKeyManager::Serve(vici::Connection& connection, uint64_t tag, uint32_t ready) {
  if (!connection) return;
  if ((ready & EPOLLOUT) != 0) {
    if (Result<void> wrote = connection.OnWritable(); !wrote) {
      return Lose(wrote.error().step + ": " + wrote.error().value, EPIPE);
    }
  }
  if ((ready & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
    Result<std::vector<Packet>> packets = connection.OnReadable();
    if (!packets) return Lose(packets.error().step + ": " + packets.error().value, EPIPE);
    for (const Packet& packet : *packets) {
      if (tag == kEventsTag) {
        OnEventPacket(packet);
      } else {
        OnSasPacket(packet);
      }
      if (!connection) return;  // lost over it
    }
  }
  Watch(connection.fd(), tag, connection.wants_write());
}

void ViciKeyManager::OnReadable() {
  epoll_event ready[32];
  const int count = epoll_wait(poll_.get(), ready, static_cast<int>(std::size(ready)), 0);
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = ready[i].data.u64;
    const uint32_t what = ready[i].events;
    if (tag == kTimerTag) {
      uint64_t expired = 0;
      if (read(timer_.get(), &expired, sizeof(expired)) < 0) continue;  // not due after all
    } else if (tag == kEventsTag) {
      Serve(events_, tag, what);
    } else if (tag == kSasTag) {
      Serve(sas_, tag, what);
    } else {
      negotiations_.Serve(tag, (what & ~static_cast<uint32_t>(EPOLLOUT)) != 0,
                          (what & EPOLLOUT) != 0);
    }
  }
  OnTime();
  Finally();
}

void ViciKeyManager::OnTime() {
  const int64_t now = Now();
  if (retry_at_ != 0 && now >= retry_at_) Connect();
  if (greeted_by_ != 0 && now >= greeted_by_) {
    Lose("connect to " + options_.path + ": charon does not answer", ETIMEDOUT);
  }
  for (auto it = leaving_.begin(); it != leaving_.end();) {
    if (it->second > now) {
      ++it;
      continue;
    }
    denied_.insert(it->first);
    it = leaving_.erase(it);
    Changed();
  }
}

void ViciKeyManager::Finally() {
  if (negotiations_.TakeWantsList()) WantSas();
  if (!mirror_.unsettled()) negotiations_.Settle();
  if (link_ == Link::kUp) negotiations_.Pump(Now());
  for (const vici::Negotiations::Finished& one : negotiations_.TakeFinished()) {
    Acquired(one.ticket, one.why);
  }
  for (const auto& [choice, made] : negotiations_.TakeEnded()) OnOwnNegotiated(choice.ike, made);
  AskConns();
  std::optional<int64_t> due = negotiations_.Due();
  for (const int64_t at : {retry_at_, greeted_by_}) {
    if (at != 0 && (!due || at < *due)) due = at;
  }
  for (const auto& [question, until] : leaving_) {
    if (!due || until < *due) due = until;
  }
  itimerspec when{};
  if (!happened_.empty()) {
    when.it_value.tv_nsec = 1;  // there is something to take
  } else if (due) {
    const int64_t left = std::max<int64_t>(*due - Now(), 1);
    when.it_value.tv_sec = left / 1000;
    when.it_value.tv_nsec = left % 1000 * 1'000'000;
  }
  timerfd_settime(timer_.get(), 0, &when, nullptr);
}

std::optional<Identified> ViciKeyManager::Known(const Sa& sa, bool inbound) const {
  std::optional<Identified> who = mirror_.Look(sa, inbound);
  // Whoever could say more cannot be asked.
  if (who && who->pending() && link_ == Link::kDown) return Identified::Nobody(Reason::kKmLost);
  return who;
}

Identified ViciKeyManager::Identify(const Sa& sa, bool inbound) {
  if (sa.larval) return Identified::Nobody();
  if (std::optional<Identified> who = Known(sa, inbound)) return std::move(*who);
  if (link_ == Link::kFirst) return Identified::Pending();
  if (link_ == Link::kDown) {
    return Identified::Nobody(absent() ? Reason::kPeerUnknown : Reason::kKmLost);
  }
  const Question question{sa.key, sa.source, sa.reqid};
  if (leaving_.contains(question)) return Identified::Pending();
  if (denied_.contains(question)) return Identified::Nobody();
  if (!being_asked_.contains(question) && asked_.insert(question).second) {
    WantSas();
    Finally();
  }
  return Identified::Pending();
}

Result<uint64_t> ViciKeyManager::Acquire(const AcquireRequest& request) {
  if (link_ == Link::kDown) return Fail(LostReason(), "acquire SA", problem_);
  vici::Wanted wanted = vici::WantedFor(request.flow, request.child, request.demand);
  const uint64_t ticket = next_ticket_++;
  if (first_list_over_ && conns_at_) {
    Result<uint64_t> begun = Begin(wanted, ticket, /*named=*/false);
    if (begun || Now() - *conns_at_ <= kFreshMs) {
      Finally();
      return begun;
    }
  }
  deferred_.emplace(ticket, std::move(wanted));
  if (link_ == Link::kUp) WantConns();
  Finally();
  return ticket;
}

void ViciKeyManager::Abandon(uint64_t ticket) {
  if (deferred_.erase(ticket) == 0) negotiations_.Leave(ticket);
  Finally();
}

std::vector<KeyEvent> ViciKeyManager::TakeEvents() {
  std::vector<KeyEvent> events = std::exchange(happened_, {});
  if (!events.empty()) Finally();
  return events;
}

ViciKeyManager::Snapshot ViciKeyManager::TakeSnapshot() const {
  Snapshot snapshot;
  snapshot.connected = connected();
  snapshot.problem = problem_;
  snapshot.version = version_;
  snapshot.child_sas = mirror_.size();
  for (const vici::ConnConfig& conn : mirror_.conns()) {
    if (vici::FlowOfOwn(conn.name)) continue;
    Connection one{conn.name, conn.RemoteId(), conn.RemoteAuth(), {}};
    for (const vici::ChildConfig& child : conn.children) {
      one.children.push_back({child.name, child.mode});
    }
    snapshot.connections.push_back(std::move(one));
  }
  return snapshot;
}

}  // namespace latchkey::broker
