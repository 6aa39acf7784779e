// What control programs do to latches, and what they are told of them: break, resume, watch.

#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "policy/model/latch.h"
#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {
namespace {

// What a watcher may be behind with, in octets of the kernel's: some hundred events, so that a
// burst does not end who reads at all. Nothing is kept for it here.
constexpr int kWatcherBuffer = 1 << 20;

wire::Done DoneWith(const wire::Header& request, wire::Reason reason) {
  wire::Done done{};
  done.header = wire::MakeHeader(wire::Type::kDone, request.serial);
  done.reason = reason;
  return done;
}

}  // namespace

bool Server::HandleControl(Connection& connection, wire::Received& request) {
  const auto& query = request.As<wire::Query>();
  connection.phase = Phase::kControl;
  const Entry* entry = engine_->database().Find(query.id);
  // One that is another's is to him as if it were not there.
  wire::Reason reason = wire::Reason::kBadRequest;
  if (entry != nullptr && MaySee(request.uid, *entry)) {
    const bool breaks = query.header.type == wire::Type::kBreak;
    reason = breaks ? engine_->AdminBreak(query.id) : engine_->AdminResume(query.id);
    if (reason == wire::Reason::kNone) {
      log_("latch " + std::to_string(query.id) + (breaks ? " broken" : " resumed") + " by uid " +
           std::to_string(request.uid) + " pid " + std::to_string(request.pid));
    }
  }
  const wire::Done reply = DoneWith(query.header, reason);
  return Reply(connection, &reply, sizeof(reply));
}

bool Server::TooManyWatchers(uint32_t uid) const {
  if (uid == 0) return false;
  const auto others =
      std::ranges::count_if(watchers_, [](const auto& each) { return each.second.uid != 0; });
  const auto same =
      std::ranges::count_if(watchers_, [uid](const auto& each) { return each.second.uid == uid; });
  return static_cast<size_t>(others) >= options_.watchers ||
         static_cast<size_t>(same) >= options_.watchers_per_user;
}

bool Server::HandleWatch(Connection& connection, wire::Received& request) {
  const auto& query = request.As<wire::Query>();
  if (query.id != 0) return false;
  connection.phase = Phase::kControl;
  if (TooManyWatchers(request.uid)) {
    const wire::Done refusal = DoneWith(query.header, wire::Reason::kLimit);
    return Reply(connection, &refusal, sizeof(refusal));
  }
  const int fd = connection.fd.get();
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kWatcherBuffer, sizeof(kWatcherBuffer)) != 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kWatcherBuffer, sizeof(kWatcherBuffer));
  }
  connection.phase = Phase::kWatching;
  watchers_[fd] = {request.uid, query.header.serial};
  const wire::Done reply = DoneWith(query.header, wire::Reason::kNone);
  return Reply(connection, &reply, sizeof(reply));
}

void Server::Tell(const Entry& entry, State from, uint8_t stalled) {
  if (watchers_.empty()) return;
  wire::EventRecord event{};
  event.time = kernel_.WallSeconds();
  event.from = static_cast<uint8_t>(from);
  event.stalled = stalled;
  event.direction = static_cast<uint8_t>(entry.latch.flow.direction);
  event.latch = ToWire(entry.latch);
  std::vector<int> behind;
  for (const auto& [fd, watcher] : watchers_) {
    if (!MaySee(watcher.uid, entry)) continue;
    event.header = wire::MakeHeader(wire::Type::kEvent, watcher.serial);
    event.latch.header = wire::MakeHeader(wire::Type::kLatch, watcher.serial);
    if (wire::SendMessage(fd, &event, sizeof(event), nullptr, 0, /*wait=*/false) != 0) {
      behind.push_back(fd);
    }
  }
  for (const int fd : behind) End(fd, "a watcher that does not take its events");
}

}  // namespace latchkey::broker
