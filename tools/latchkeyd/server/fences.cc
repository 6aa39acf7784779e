// The fences around sessions' programs (latch/fence_port.h): when one is put up and taken away,
// what it is told, and what it tells.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "policy/compile.h"
#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {
namespace {

// The number of a session's fence: of its token, so that no session of another broker has it.
uint64_t FenceOf(const Session& session) {
  uint64_t id = 0;
  const std::string& token = session.record.token;
  std::from_chars(token.data(), token.data() + std::min<size_t>(token.size(), 16), id, 16);
  return id;
}

const char* WordOf(FenceStop::Kind kind) {
  switch (kind) {
    case FenceStop::Kind::kConnect:
      return "connect refused";
    case FenceStop::Kind::kSend:
      return "sendmsg refused";
    case FenceStop::Kind::kSocket:
      return "socket refused";
    case FenceStop::Kind::kOut:
    case FenceStop::Kind::kIn:
      return "packet dropped";
  }
  return "stopped";
}

// What an answer means to the fence; nothing: the socket is as undecided as it was.
struct Meaning {
  enum class Do : uint8_t { kNothing, kDecide, kForget } what = Do::kNothing;
  FenceDecision decision;
};

Meaning Of(FenceDecision::Kind kind, const SocketAddress& remote = {}, uint32_t device = 0) {
  return {Meaning::Do::kDecide, {kind, remote, device}};
}

// What of a socket's own its answer's meaning depends on.
struct SocketState {
  bool datagrams = false;
  bool connected = false;
  bool latched = false;
  bool held = false;       // UDP: under the rules, without a connection
  bool clear = false;      // UDP: its latch is one in clear
  SocketAddress remote{};  // of what was accepted from this host
};

Meaning MeaningOf(wire::Type type, const Answer& answer, const SocketAddress& remote,
                  const SocketState& socket) {
  using Kind = FenceDecision::Kind;
  const wire::Verdict verdict = answer.verdict;
  const bool granted = verdict != wire::Verdict::kRefused;
  const bool latched = verdict == wire::Verdict::kLatched;
  switch (type) {
    case wire::Type::kConnect:
      // Refused, it is what it was before: a UDP socket keeps its old latch.
      if (!granted) return {};
      // The kernel holds it to its latch, and says by itself what else it may not send to.
      if (latched && socket.datagrams) {
        return Of(Kind::kLatched, socket.clear ? remote : SocketAddress{});
      }
      if (verdict == wire::Verdict::kLocal) return Of(Kind::kHost, remote, answer.device);
      return Of(Kind::kFlow, remote);
    case wire::Type::kAccept:
      if (verdict == wire::Verdict::kLocal) return Of(Kind::kHost, socket.remote, answer.device);
      [[fallthrough]];
    case wire::Type::kListen:
      return granted ? Of(Kind::kPassive) : Meaning{Meaning::Do::kForget, {}};
    case wire::Type::kRelease:
      if (!socket.datagrams) return {Meaning::Do::kForget, {}};
      // Nothing was released: it is connected anew, by a latch of its own or as the rules allow.
      if (granted && socket.connected) {
        return socket.latched ? Meaning{} : Meaning{Meaning::Do::kForget, {}};
      }
      if (granted && socket.held) return Of(Kind::kHeld);
      [[fallthrough]];
    case wire::Type::kHold:
      if (!granted) return {Meaning::Do::kForget, {}};
      return Of(latched ? Kind::kHeld : Kind::kClear);
    case wire::Type::kPeer:
      if (!granted) return {};
      return latched ? Of(Kind::kHeld) : Of(Kind::kClear, remote);
    default:
      return {};
  }
}

}  // namespace

void Server::Use(FencePort& fence) {
  fence_ = &fence;
  const std::vector<uint64_t> standing = fence.Fences();
  for (auto& [id, session] : sessions_.all()) {
    if (std::ranges::find(standing, FenceOf(session)) != standing.end()) {
      // It goes by the rules that it has until the SPD is known: OnSystem().
      session.record.fence = wire::FenceState::kStands;
    } else if (IsFenced(session)) {
      session.record.fence = wire::FenceState::kLacking;
      session.record.not_fenced = "its fence is not to be found: nothing more is decided behind it";
      log_(fmt::format("warning: not fenced: {}: {}", session.record.program,
                       session.record.not_fenced));
    }
  }
}

FenceIncoming Server::IncomingOf(const Session& session) const {
  return {policy::RulesIncoming(*session.policy),
          policy::RulesConnections(*session.policy, sessions_.file())};
}

bool Server::IsFenced(const Session& session) {
  return session.record.fence == wire::FenceState::kStands;
}

void Server::Enclose(Session& session, int32_t pid) {
  SessionRecord& record = session.record;
  record.fence = wire::FenceState::kLacking;
  record.not_fenced = fence_ == nullptr ? "this broker has none" : fence_->Lacking();
  if (record.not_fenced.empty()) {
    const uint64_t id = FenceOf(session);
    Result<void> done = fence_->SetRules(id, session.page.page(), IncomingOf(session));
    if (done) done = fence_->Enclose(id, pid);
    if (done) {
      record.fence = wire::FenceState::kStands;
      return;
    }
    record.not_fenced = done.error().ToString();
    fence_->Release(id);
  }
  log_(fmt::format("warning: not fenced: {}: {}", record.program, record.not_fenced));
}

void Server::PushRules(Session& session) {
  if (fence_ == nullptr || !IsFenced(session)) return;
  const Result<void> done =
      fence_->SetRules(FenceOf(session), session.page.page(), IncomingOf(session));
  if (!done) {
    log_(fmt::format("error: the fence of {} goes by its old rules: {}", session.record.program,
                     done.error().ToString()));
  }
}

void Server::TellFence(wire::Type type, int fd, const SocketAddress& remote, const Answer& answer) {
  if (fence_ == nullptr || answer.verdict == wire::Verdict::kWait) return;
  SocketState socket;
  if (type == wire::Type::kConnect) {
    // Each look at the socket costs a connect some microseconds.
    const Entry* entry = answer.latch != 0 ? engine_->database().Find(answer.latch) : nullptr;
    socket.datagrams = entry != nullptr && entry->latch.flow.protocol == kProtocolUdp;
    socket.clear = entry != nullptr && entry->latch.clear;
  } else if (type == wire::Type::kAccept && answer.verdict == wire::Verdict::kLocal) {
    if (const Result<SocketFacts> facts = kernel_.Inspect(fd); facts) {
      socket.remote = facts->remote;
    }
  } else if (type == wire::Type::kRelease) {
    if (const Result<SocketFacts> facts = kernel_.Inspect(fd); facts) {
      socket.datagrams = facts->datagram_udp;
      socket.connected = facts->remote.address.family != Family::kNone;
      const Entry* entry = engine_->database().FindByCookie(facts->cookie);
      socket.latched = entry != nullptr;
      socket.held = socket.latched && entry->held;
    }
  }
  const Meaning meaning = MeaningOf(type, answer, remote, socket);
  if (meaning.what == Meaning::Do::kForget) fence_->Forget(fd);
  if (meaning.what != Meaning::Do::kDecide) return;
  const Result<void> done = fence_->Decide(fd, meaning.decision);
  // Then nothing of it passes a fence; without one it does not matter.
  if (!done && !std::exchange(fence_told_, true) && fence_->Lacking().empty()) {
    log_("error: fences hold back what is decided: " + done.error().ToString());
  }
}

void Server::ReadFences() {
  if (fence_ == nullptr) return;
  for (const FenceStop& stop : fence_->TakeStops()) {
    const auto found = std::ranges::find_if(
        sessions_.all(), [&stop](const auto& each) { return FenceOf(each.second) == stop.fence; });
    if (found == sessions_.all().end()) continue;
    const SessionRecord& record = found->second.record;
    Flow flow;
    flow.protocol = stop.protocol;
    flow.direction = stop.kind == FenceStop::Kind::kIn ? Direction::kIn : Direction::kOut;
    flow.remote = stop.remote;
    std::string detail = WordOf(stop.kind);
    if (stop.kind == FenceStop::Kind::kSocket) {
      flow.remote = {};
      detail += fmt::format(", IP protocol {}", stop.protocol);
    }
    if (stop.count > 1) detail += fmt::format(", {} times since last told", stop.count);
    log_(fmt::format("refused: {} {} {} ({}) program {}", wire::ReasonWord(Reason::kFenced),
                     flow.direction == Direction::kOut ? "->" : "<-", flow.remote.ToString(),
                     detail, record.program));
    history_.Add({0, kernel_.WallSeconds(), 0, Reason::kFenced, flow, 0, record.uid, record.program,
                  found->second.policy->application, detail});
  }
}

void Server::TickFences() {
  if (fence_ == nullptr) return;
  ReadFences();
  std::vector<uint64_t> orphans = fence_->Fences();
  for (auto& [id, session] : sessions_.all()) {
    if (!IsFenced(session)) continue;
    std::erase(orphans, FenceOf(session));
    if (session.connections == 0 && fence_->Release(FenceOf(session))) {
      session.record.fence = wire::FenceState::kOver;
      journal_.Add(session.record);
    }
  }
  for (const uint64_t id : orphans) fence_->Release(id);
}

bool Server::HandleFence(Connection& connection, wire::Received& request) {
  const auto& query = request.As<wire::Query>();
  connection.phase = Phase::kControl;
  wire::FenceRecord reply{};
  const auto& all = sessions_.all();
  auto found = all.upper_bound(query.id);
  while (found != all.end() && request.uid != 0 && found->second.record.uid != request.uid) ++found;
  const auto put = [](char(&field)[wire::kPathSize], const std::string& text) {
    std::memcpy(field, text.data(), std::min(text.size(), sizeof(field) - 1));
  };
  if (found == all.end()) {
    const std::string lacking = fence_ == nullptr ? "this broker has none" : fence_->Lacking();
    reply.state = lacking.empty() ? wire::FenceState::kUnasked : wire::FenceState::kLacking;
    put(reply.why, lacking);
  } else {
    const Session& session = found->second;
    reply.id = found->first;
    reply.uid = session.record.uid;
    reply.state = session.record.fence;
    reply.launched = session.record.by_launcher ? 1 : 0;
    reply.unlatched = session.record.unlatched ? 1 : 0;
    put(reply.program, session.record.program);
    put(reply.policy, session.record.policy_name);
    put(reply.why, session.record.not_fenced);
  }
  reply.header = wire::MakeHeader(wire::Type::kFenced, query.header.serial);
  return Reply(connection, &reply, sizeof(reply));
}

}  // namespace latchkey::broker
