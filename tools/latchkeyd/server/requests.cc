#include "tools/latchkeyd/server/requests.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "policy/model/latch.h"

namespace latchkey::broker {

namespace {

constexpr size_t kMostPending = 1024;
constexpr uint32_t kOverflowUser = 65534;  // what the kernel shows for "none"
constexpr auto kFresh = static_cast<uint8_t>(Phase::kFresh);
constexpr auto kControl = static_cast<uint8_t>(Phase::kControl);
constexpr auto kAttached = static_cast<uint8_t>(Phase::kAttached);

}  // namespace

const RequestTable::Row* RequestTable::Find(wire::Type type) {
  static constexpr Row kRows[] = {
      {wire::Type::kOpen, kFresh, 0, 3, &Server::HandleOpen},
      {wire::Type::kAttach, kFresh, 0, 0, &Server::HandleAttach},
      {wire::Type::kConnect, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kListen, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kAccept, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kRelease, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kHold, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kPeer, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kLatches, kAttached, 1, 1, &Server::HandleLatches},
      {wire::Type::kInquire, kAttached, 1, 1, &Server::HandleInquire},
      {wire::Type::kInquirePeer, kAttached, 1, 1, &Server::HandleInquirePeer},
      {wire::Type::kWish, kAttached, 1, 1, &Server::HandleWish},
      {wire::Type::kBinding, kAttached, 1, 1, &Server::HandleBinding},
      {wire::Type::kList, kFresh | kControl, 0, 0, &Server::HandleQuery},
      {wire::Type::kShow, kFresh | kControl, 0, 0, &Server::HandleQuery},
      {wire::Type::kSpd, kFresh | kControl, 0, 0, &Server::HandleFacts},
      {wire::Type::kSa, kFresh | kControl, 0, 0, &Server::HandleFacts},
      {wire::Type::kWhy, kFresh | kControl, 0, 0, &Server::HandleFacts},
      {wire::Type::kBreak, kFresh | kControl, 0, 0, &Server::HandleControl},
      {wire::Type::kResume, kFresh | kControl, 0, 0, &Server::HandleControl},
      {wire::Type::kWatch, kFresh | kControl, 0, 0, &Server::HandleWatch},
      {wire::Type::kFence, kFresh | kControl, 0, 0, &Server::HandleFence},
  };
  const Row* row = std::ranges::find(kRows, type, &Row::type);
  return row == std::end(kRows) ? nullptr : row;
}

bool Server::Serve(Connection& connection, wire::Received& request) {
  const RequestTable::Row* row = RequestTable::Find(request.header().type);
  return row != nullptr && CompleteCredentials(connection, request) &&
         (row->phases & static_cast<uint8_t>(connection.phase)) != 0 &&
         request.descriptor_count >= row->fewest_descriptors &&
         request.descriptor_count <= row->most_descriptors &&
         (this->*row->handler)(connection, request);
}

bool Server::CompleteCredentials(const Connection& connection, wire::Received& request) {
  if (!request.has_credentials) return false;
  if (request.pid != 0 || request.uid != kOverflowUser || connection.phase != Phase::kFresh) {
    return true;
  }
  // Sent in the moment between accept() and SO_PASSCRED (kernels before 6.16, which do not inherit
  // the option from the listener): nobody's. Who connected said it, then; no later message can be
  // of that kind.
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(connection.fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  request.pid = peer.pid;
  request.uid = peer.uid;
  request.gid = peer.gid;
  return true;
}

bool Server::HandleAttach(Connection& connection, wire::Received& request) {
  const auto& attach = request.As<wire::Attach>();
  wire::Attached reply{};
  reply.header = wire::MakeHeader(wire::Type::kAttached, attach.header.serial);
  Session* session = sessions_.FindByToken(attach.token);
  if (session == nullptr) {
    reply.reason = wire::Reason::kNoSession;
    return Reply(connection, &reply, sizeof(reply));
  }
  const UniqueFd page(session->page.OpenForClient());
  if (!page) return false;
  connection.session = session->record.id;
  connection.phase = Phase::kAttached;
  ++session->connections;
  session->idle_since = 0;
  session->checked_in = true;
  session->launched.Reset();
  MarkPages();
  return Reply(connection, &reply, sizeof(reply), page.get());
}

bool Server::HandleSocket(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::SocketRequest>();
  if ((asked.flags & ~wire::kRequestNonblocking) != 0) return false;
  Session* session = sessions_.Find(connection.session);
  if (session == nullptr) return false;
  Client client = ClientOf(*session, request);
  const int fd = request.descriptors[0];
  Answer answer{wire::Verdict::kRefused, Reason::kLimit, 0, 0};
  // Descriptors of his that do not close are held against a user before there are too many.
  const bool stalls = request.uid != 0 && offload_.Pending(request.uid) >= kMostPending;
  const bool held = HoldToRequest(client, fd, asked.header.type);
  if (!held) answer.reason = Reason::kSuspectGap;
  switch (stalls || !held ? wire::Type::kDecision : asked.header.type) {
    case wire::Type::kConnect:
      answer = engine_->Connect(client, fd, asked.fd, FromWire(asked.remote),
                                (asked.flags & wire::kRequestNonblocking) != 0, asked.remote.scope);
      break;
    case wire::Type::kListen:
      answer = engine_->Listen(client, fd, asked.fd);
      break;
    case wire::Type::kAccept:
      answer = engine_->Accept(client, fd, asked.fd);
      break;
    case wire::Type::kRelease:
      answer = engine_->Release(client, fd, asked.fd);
      break;
    case wire::Type::kHold:
      answer = engine_->Hold(client, fd, asked.fd);
      break;
    case wire::Type::kPeer:
      answer = engine_->Peer(client, fd, asked.fd, FromWire(asked.remote),
                             (asked.flags & wire::kRequestNonblocking) != 0, asked.remote.scope);
      break;
    default:
      if (!held) break;
      log_("refused: limit: too many descriptors of uid " + std::to_string(request.uid) +
           " do not close");
  }
  if (answer.verdict == wire::Verdict::kWait) {
    // The descriptor stays with us until OnAnswer().
    connection.undecided = Undecided{answer.ticket,          asked.header.serial, asked.header.type,
                                     FromWire(asked.remote), UniqueFd(fd),        kernel_.NowMs()};
    request.descriptor_count = 0;
    return TellToWait(connection);
  }
  TellFence(asked.header.type, fd, FromWire(asked.remote), answer);
  const wire::Decision reply = DecisionOf(answer, asked.header.serial);
  // Ours goes before the program goes on: it may close its own, or bind anew, at once.
  if (prompt_close_.Close(fd)) request.descriptor_count = 0;
  return Reply(connection, &reply, sizeof(reply));
}

bool Server::HandleQuery(Connection& connection, wire::Received& request) {
  const auto& query = request.As<wire::Query>();
  connection.phase = Phase::kControl;
  const auto visible = [&](const Entry& entry) { return MaySee(request.uid, entry); };
  const Entry* entry = nullptr;
  if (query.header.type == wire::Type::kShow) {
    entry = engine_->database().Find(query.id);
    if (entry != nullptr && !visible(*entry)) entry = nullptr;
  } else {
    if (query.id == 0) engine_->Tick(/*reap_now=*/true);
    entry = engine_->database().After(query.id);
    while (entry != nullptr && !visible(*entry)) {
      entry = engine_->database().After(entry->latch.id);
    }
  }
  wire::LatchRecord reply{};
  if (entry != nullptr) reply = ToWire(engine_->Shown(*entry));
  reply.header = wire::MakeHeader(wire::Type::kLatch, query.header.serial);
  return Reply(connection, &reply, sizeof(reply));
}

bool Server::HandleFacts(Connection& connection, wire::Received& request) {
  const auto& query = request.As<wire::Query>();
  connection.phase = Phase::kControl;
  const uint32_t serial = query.header.serial;
  if (query.header.type == wire::Type::kWhy) {
    if (query.id == 0) ReadFences();
    wire::IncidentRecord reply{};
    if (const Incident* incident = history_.Before(query.id, request.uid)) {
      reply = ToRecord(*incident);
    }
    reply.header = wire::MakeHeader(wire::Type::kIncident, serial);
    return Reply(connection, &reply, sizeof(reply));
  }
  // The site's SPD and SAD are root's to see, as in the kernel.
  const bool shown = request.uid == 0;
  if (query.header.type == wire::Type::kSpd) {
    wire::SpdRecord reply{};
    if (shown && query.id < engine_->spd().size()) {
      OwnedEntry owned;
      owned.entry = engine_->spd()[query.id];
      owned.owner = engine_->OwnerOf(owned.entry, owned.latch);
      reply = ToRecord(owned);
    }
    reply.header = wire::MakeHeader(wire::Type::kSpdEntry, serial);
    return Reply(connection, &reply, sizeof(reply));
  }
  wire::SaRecord reply{};
  const auto& sas = engine_->sas().all();
  if (shown && query.id < sas.size()) {
    reply = ToRecord(std::next(sas.begin(), static_cast<std::ptrdiff_t>(query.id))->second);
  }
  reply.header = wire::MakeHeader(wire::Type::kSaEntry, serial);
  return Reply(connection, &reply, sizeof(reply));
}

}  // namespace latchkey::broker
