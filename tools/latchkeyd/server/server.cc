#include "tools/latchkeyd/server/server.h"

#include <fmt/compile.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>
#include <vector>

#include "tools/latchkeyd/server/cause.h"
#include "tools/latchkeyd/server/receive.h"

namespace latchkey::broker {
namespace {

// How often a client hears that it must go on waiting; it gives up after 10 s of silence.
constexpr int64_t kWaitMs = 2'000;

const char* NameOf(uint8_t protocol) { return protocol == kProtocolUdp ? "udp" : "tcp"; }

// What a line of the log says of a latch.
std::string Describe(const Entry& entry) {
  const Latch& latch = entry.latch;
  std::string text =
      fmt::format(FMT_COMPILE("{} {}"), NameOf(latch.flow.protocol), latch.flow.local.ToString());
  if (latch.flow.remote.address.family != Family::kNone) {
    const char* arrow = latch.flow.direction == Direction::kOut ? "->" : "<-";
    fmt::format_to(std::back_inserter(text), FMT_COMPILE(" {} {}"), arrow,
                   latch.flow.remote.ToString());
  }
  if (latch.clear) text += " CLEAR";
  if (latch.implicit) text += " implicit";
  if (!latch.identity.peer_id.empty()) {
    fmt::format_to(std::back_inserter(text), FMT_COMPILE(" peer \"{}\""), latch.identity.peer_id);
  }
  if (!latch.rule.empty()) {
    fmt::format_to(std::back_inserter(text), FMT_COMPILE(" rule \"{}\""), latch.rule);
  }
  fmt::format_to(std::back_inserter(text), FMT_COMPILE(" program {} pid {}"), latch.program,
                 latch.pid);
  return text;
}

bool Exited(int pidfd) {
  pollfd waiting{pidfd, POLLIN, 0};
  return poll(&waiting, 1, 0) > 0;
}

}  // namespace

Server::Server(KernelPort& kernel, SessionTable& sessions, Journal& journal, ServerOptions options,
               std::function<void(const std::string&)> log)
    : kernel_(kernel),
      sessions_(sessions),
      journal_(journal),
      options_(std::move(options)),
      log_(std::move(log)),
      texts_(std::make_shared<ReadTexts>()) {
  texts_->event.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

bool Server::AddConnection(UniqueFd fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  const auto of_user = std::ranges::count_if(
      connections_, [&](const auto& each) { return each.second.uid == peer.uid; });
  if (connections_.size() >= options_.connections ||
      (peer.uid != 0 && static_cast<size_t>(of_user) >= options_.connections_per_user)) {
    offload_.Close(peer.uid, fd.Release());
    return false;
  }
  Connection& connection = connections_[fd.get()];
  connection.uid = peer.uid;
  connection.fd = std::move(fd);
  return true;
}

void Server::OnReadable(int fd) {
  auto it = connections_.find(fd);
  if (it == connections_.end()) return;
  wire::Received request;
  std::vector<int> descriptors;
  const int error = ReceiveRequest(fd, request, descriptors);
  const uint32_t uid = it->second.uid;
  if (error == 0 && it->second.opening == 0 && !it->second.undecided && it->second.binding == 0) {
    const bool served = Serve(it->second, request);
    // What the handler took for itself is not there any more.
    descriptors.assign(request.descriptors, request.descriptors + request.descriptor_count);
    if (!served) End(fd, "a request out of order, or an answer nobody took");
  } else if (error == EPIPE || error == ECONNRESET) {
    End(fd, nullptr);
  } else if (error != EAGAIN && error != EINTR) {
    End(fd, error == 0 ? "a request before the last was answered" : "not a message");
  }
  for (const int descriptor : descriptors) offload_.Close(uid, descriptor);
}

bool Server::Reply(const Connection& connection, const void* message, uint32_t size,
                   int descriptor) {
  return wire::SendMessage(connection.fd.get(), message, size, &descriptor, descriptor >= 0 ? 1 : 0,
                           /*wait=*/false) == 0;
}

void Server::End(int fd, const char* why) {
  auto it = connections_.find(fd);
  if (it == connections_.end()) return;
  const Connection& connection = it->second;
  if (why != nullptr) log_(std::string("connection ended: ") + why);
  if (Session* session = sessions_.Find(connection.session)) {
    const int64_t now = kernel_.NowMs();
    if (--session->connections == 0) session->idle_since = now;
    // The launcher's connection closes at exec: from then on the shim must be heard of.
    if (connection.launcher && !session->checked_in && session->launched) {
      session->check_in_by = now + options_.check_in_ms;
    }
  }
  openings_.erase(connection.opening);
  if (connection.undecided) {
    engine_->Cancel(connection.undecided->ticket);
    offload_.Close(connection.uid, it->second.undecided->socket.Release());
  }
  watchers_.erase(fd);
  // What lies unread in it may bring descriptors of its own.
  offload_.Close(connection.uid, it->second.fd.Release());
  connections_.erase(it);
}

void Server::Tick() {
  const int64_t now = kernel_.NowMs();
  TickFences();
  std::vector<uint64_t> over;
  for (auto& [id, session] : sessions_.all()) {
    if (session.launched && Exited(session.launched.get())) session.launched.Reset();
    if (session.check_in_by != 0 && session.launched && now >= session.check_in_by) {
      syscall(SYS_pidfd_send_signal, session.launched.get(), SIGKILL, nullptr, 0);
      log_("killed: " + session.record.program + ": " +
           wire::ReasonWord(wire::Reason::kShimNotLoaded));
      session.launched.Reset();
    }
    if (session.connections == 0 && now - session.idle_since >= options_.session_idle_ms &&
        !HasLatch(id) && !IsFenced(session)) {
      over.push_back(id);
    }
  }
  for (const uint64_t id : over) EndSession(id);
  std::vector<int> deaf;
  for (auto& [fd, connection] : connections_) {
    if (!connection.undecided || now - connection.undecided->told_at < kWaitMs) continue;
    connection.undecided->told_at = now;
    if (!TellToWait(connection)) deaf.push_back(fd);
  }
  for (const int fd : deaf) End(fd, "an answer nobody took");
  engine_->Tick();
  PruneWishes();
  if (journal_.IsLong()) journal_.Compact(Snapshot());
  if (journal_.TakeFailure())
    log_("error: the journal cannot be written: a restart would lose latches");
}

bool Server::HasLatch(uint64_t session) const {
  return std::ranges::any_of(engine_->database().entries(), [session](const auto& latch) {
    return latch.second.session == session;
  });
}

void Server::EndSession(uint64_t id) {
  journal_.EndSession(id);
  sessions_.Remove(id);
}

// Sessions whose fence is over make way for one that is about to be made, the longest idle first:
// nobody was left behind it. (Who was moved out, and has neither connection nor latch, loses his.)
// Of others nothing says whether a process of theirs is still there, and none of them ends.
void Server::MakeRoom(uint32_t uid) {
  if (sessions_.HasRoom(uid)) return;
  TickFences();
  std::vector<std::pair<int64_t, uint64_t>> idle;
  for (const auto& [id, session] : sessions_.all()) {
    const bool over = session.record.fence == wire::FenceState::kOver;
    if (session.record.uid == uid && session.connections == 0 && over) {
      idle.emplace_back(session.idle_since, id);
    }
  }
  std::ranges::sort(idle);
  for (const auto& [since, id] : idle) {
    if (HasLatch(id)) continue;
    EndSession(id);
    if (sessions_.HasRoom(uid)) return;
  }
}

void Server::EndIdleSessions() {
  TickFences();
  std::vector<uint64_t> over;
  for (const auto& [id, session] : sessions_.all()) {
    if (session.connections == 0 && !HasLatch(id) && !IsFenced(session)) over.push_back(id);
  }
  for (const uint64_t id : over) EndSession(id);
}

JournalState Server::Snapshot() {
  JournalState state;
  for (const auto& [id, session] : sessions_.all()) state.sessions[id] = session.record;
  for (const auto& [id, entry] : engine_->database().entries()) {
    if (entry.latch.listener == 0) state.latches.emplace(id, entry);
  }
  state.guards = guards_;
  state.last_id = engine_->database().last_id();
  for (const auto& [key, known] : engine_->sas().all()) {
    if (std::optional<Identity> identity = known.Vouching()) {
      state.vouchers[key] = Voucher{known.sa, std::move(*identity), known.traffic};
    }
  }
  state.wishes = wishes_.Records();
  return state;
}

void Server::OnState(const Entry& entry, State from) {
  const Latch& latch = entry.latch;
  const bool peer = latch.listener != 0;  // of a socket that is not in trouble itself
  Session* session = peer ? nullptr : sessions_.Find(entry.session);
  // The page first: a program whose call fails from now on must find out why.
  if (session != nullptr && latch.state == State::kBroken) {
    // One that is suspended is no error yet; only what TCP makes of the silence is.
    wire::Trouble trouble = latch.suspends ? wire::Trouble::kNoSa : wire::Trouble::kBroken;
    if (entry.refused) trouble = wire::Trouble::kRefused;
    SetTrouble(session->page.page(), entry.hint.cookie, trouble, latch.reason);
  }
  TellState(entry, latch.state == State::kClosed);
  const bool over = latch.state == State::kClosed ||
                    (latch.state == State::kEstablished && from == State::kBroken);
  if (session != nullptr && over) ClearTrouble(session->page.page(), entry.hint.cookie);
  if (peer) {
    if (latch.state == from) journal_.NoteId(latch.id);
  } else if (latch.state == State::kClosed) {
    journal_.EndLatch(latch.id);
  } else {
    journal_.Add(entry);
  }
  if (latch.state == State::kBroken) {
    history_.Add({0, kernel_.WallSeconds(), latch.id, latch.reason, latch.flow, latch.pid,
                  latch.uid, latch.program, latch.policy,
                  latch.rule.empty() ? "" : "rule " + latch.rule,
                  CauseIn(entry.session, entry.policy.get(), latch.flow, entry.rule)});
  }
  log_(fmt::format(FMT_COMPILE("latch {} {} -> {}: {} {}"), latch.id,
                   from == latch.state && from != State::kBroken ? "new" : StateName(from),
                   StateName(latch.state), wire::ReasonWord(latch.reason), Describe(entry)));
  Tell(entry, from, wire::kStallNone);
}

void Server::OnStall(const Entry& entry, bool stalled) {
  Session* session = entry.latch.listener == 0 ? sessions_.Find(entry.session) : nullptr;
  if (session != nullptr) {
    if (stalled) {
      SetTrouble(session->page.page(), entry.hint.cookie, wire::Trouble::kNoSa,
                 wire::Reason::kNoSa);
    } else {
      ClearTrouble(session->page.page(), entry.hint.cookie);
    }
  }
  log_("latch " + std::to_string(entry.latch.id) + (stalled ? " stalls: " : " moves again: ") +
       wire::ReasonWord(wire::Reason::kNoSa) + " " + Describe(entry));
  Tell(entry, entry.latch.state, stalled ? wire::kStallBegins : wire::kStallEnds);
}

void Server::OnMove(const Entry& entry) {
  if (entry.latch.listener == 0) journal_.Add(entry);
}

void Server::OnVoucher(const Voucher& voucher) { journal_.Add(voucher); }

void Server::OnVoucherEnd(const SaKey& key) { journal_.EndVoucher(key); }

void Server::OnGuard(const Guard& guard, bool adding) {
  if (adding) {
    if (guards_.insert(guard).second) journal_.Add(guard);
  } else {
    guards_.erase(guard);
    journal_.EndGuard(guard);
  }
}

void Server::OnAnswer(uint64_t ticket, const Answer& answer) {
  const auto waits = std::ranges::find_if(connections_, [ticket](const auto& each) {
    return each.second.undecided && each.second.undecided->ticket == ticket;
  });
  if (waits == connections_.end()) return;
  Connection& connection = waits->second;
  Undecided undecided = std::move(*connection.undecided);
  connection.undecided.reset();
  TellFence(undecided.type, undecided.socket.get(), undecided.remote, answer);
  const wire::Decision reply = DecisionOf(answer, undecided.serial);
  // Ours goes before the program goes on: it may close its own, or bind anew, at once.
  const int socket = undecided.socket.Release();
  if (!prompt_close_.Close(socket)) offload_.Close(connection.uid, socket);
  if (!Reply(connection, &reply, sizeof(reply))) End(waits->first, "an answer nobody took");
}

bool Server::TellToWait(const Connection& connection) {
  Answer wait;
  wait.verdict = wire::Verdict::kWait;
  wait.reason = wire::Reason::kNone;
  const wire::Decision reply = DecisionOf(wait, connection.undecided->serial);
  return Reply(connection, &reply, sizeof(reply));
}

wire::Decision Server::DecisionOf(const Answer& answer, uint32_t serial) {
  wire::Decision decision{};
  decision.header = wire::MakeHeader(wire::Type::kDecision, serial);
  decision.verdict = answer.verdict;
  decision.reason = answer.reason;
  decision.latch = answer.latch;
  if (answer.verdict == wire::Verdict::kRefused) {
    const int error = wire::ReasonErrno(answer.reason);
    decision.error = error != 0 ? error : EACCES;
  }
  return decision;
}

std::string Server::CauseIn(uint64_t session, const policy::Policy* policy, const Flow& flow,
                            const policy::Rule* rule) {
  static const policy::Policy kNone;
  const Session* known = sessions_.Find(session);
  const bool has = known != nullptr && known->record.has_policy;
  const CauseFiles files{has ? known->record.policy_name : "", options_.system_file};
  return CauseOf(policy != nullptr ? *policy : kNone, files, engine_->system(), flow, rule);
}

void Server::OnRefusal(const Client& client, const Flow& flow, wire::Reason reason,
                       const std::string& detail) {
  history_.Add({0, kernel_.WallSeconds(), 0, reason, flow, static_cast<uint32_t>(client.pid),
                client.requester.uid, client.program, client.policy->application, detail,
                CauseIn(client.session, client.policy.get(), flow)});
  log_(std::string("refused: ") + wire::ReasonWord(reason) + " " + NameOf(flow.protocol) + " " +
       flow.local.ToString() + (flow.direction == Direction::kOut ? " -> " : " <- ") +
       flow.remote.ToString() + " (" + detail + ") program " + client.program + " pid " +
       std::to_string(client.pid));
}

void Server::OnSystem() {
  sessions_.UseSpd(engine_->system().spd);
  for (auto& [id, session] : sessions_.all()) PushRules(session);
}

void Server::OnWarning(const std::string& text) { log_("warning: " + text); }

}  // namespace latchkey::broker
