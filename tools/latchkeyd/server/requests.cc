#include "tools/latchkeyd/server/requests.h"

#include <sodium.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <string>

#include "policy/model/latch.h"

namespace latchkey::broker {

namespace {

constexpr off_t kMaxPolicy = 1 << 20;
constexpr uint32_t kOverflowUser = 65534;  // what the kernel shows for "none"
constexpr auto kFresh = static_cast<uint8_t>(Phase::kFresh);
constexpr auto kControl = static_cast<uint8_t>(Phase::kControl);
constexpr auto kAttached = static_cast<uint8_t>(Phase::kAttached);

template <size_t N>
bool Text(const char (&field)[N], std::string& text) {
  const char* end = std::find(field, field + N, '\0');
  if (end == field + N) return false;
  text.assign(field, end);
  return true;
}

Result<std::string> ReadPolicyText(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Fail(Reason::kBadPolicy, "read policy", "not a regular file");
  }
  if (status.st_size > kMaxPolicy) {
    return Fail(Reason::kBadPolicy, "read policy", "larger than 1 MiB");
  }
  std::string text(static_cast<size_t>(status.st_size), '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t count =
        pread(fd, text.data() + have, text.size() - have, static_cast<off_t>(have));
    if (count <= 0) return Fail(Reason::kBadPolicy, "read policy", "cannot be read");
    have += static_cast<size_t>(count);
  }
  return text;
}

// The process that a descriptor received as a pidfd stands for; -1 for one that has ended, or for
// what is no pidfd.
int32_t ProcessOf(int pidfd) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(pidfd));
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("Pid:\t")) continue;
    int32_t pid = -1;
    std::from_chars(line.data() + 5, line.data() + line.size(), pid);
    return pid;
  }
  return -1;
}

}  // namespace

const RequestTable::Row* RequestTable::Find(wire::Type type) {
  static constexpr Row kRows[] = {
      {wire::Type::kOpen, kFresh, 0, 2, &Server::HandleOpen},
      {wire::Type::kAttach, kFresh, 0, 0, &Server::HandleAttach},
      {wire::Type::kConnect, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kListen, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kAccept, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kRelease, kAttached, 1, 1, &Server::HandleSocket},
      {wire::Type::kList, kFresh | kControl, 0, 0, &Server::HandleQuery},
      {wire::Type::kShow, kFresh | kControl, 0, 0, &Server::HandleQuery},
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

bool Server::HandleOpen(Connection& connection, wire::Received& request) {
  const auto& open = request.As<wire::Open>();
  SessionRecord record;
  record.uid = request.uid;
  record.has_policy = (open.flags & wire::kOpenNoPolicy) == 0;
  const bool launcher = (open.flags & wire::kOpenLauncher) != 0;
  const int expected = (record.has_policy ? 1 : 0) + (launcher ? 1 : 0);
  if ((open.flags & ~(wire::kOpenLauncher | wire::kOpenNoPolicy)) != 0 || open.reserved != 0 ||
      request.descriptor_count != expected || !Text(open.program, record.program) ||
      !Text(open.policy, record.policy_name)) {
    return false;
  }
  // It will be killed if its shim is not heard of: nobody may name another's process here.
  if (launcher && ProcessOf(request.descriptors[request.descriptor_count - 1]) != request.pid) {
    return false;
  }
  wire::Opened reply{};
  reply.header = wire::MakeHeader(wire::Type::kOpened, open.header.serial);
  Result<Session*> session = Fail(Reason::kBadPolicy, "open session");
  Result<std::string> text = std::string();
  if (record.has_policy) text = ReadPolicyText(request.descriptors[0]);
  if (text) {
    record.policy_text = std::move(*text);
    session = sessions_.Make(std::move(record));
  } else {
    session = std::unexpected(text.error());
  }
  if (!session) {
    reply.reason = session.error().reason;
    const std::string& why = session.error().value;
    std::memcpy(reply.text, why.data(), std::min(why.size(), sizeof(reply.text) - 1));
    log_("session refused: " + session.error().ToString());
  } else {
    const std::string& token = (*session)->record.token;
    sodium_hex2bin(reply.token, sizeof(reply.token), token.data(), token.size(), nullptr, nullptr,
                   nullptr);
    connection.session = (*session)->record.id;
    connection.launcher = launcher;
    ++(*session)->connections;
    if (launcher) {
      int& pidfd = request.descriptors[request.descriptor_count - 1];
      (*session)->launched.Reset(pidfd);
      --request.descriptor_count;
    }
    journal_.Add((*session)->record);
  }
  connection.phase = Phase::kControl;
  return Reply(connection, &reply, sizeof(reply));
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
  return Reply(connection, &reply, sizeof(reply), page.get());
}

bool Server::HandleSocket(Connection& connection, wire::Received& request) {
  const auto& asked = request.As<wire::SocketRequest>();
  if ((asked.flags & ~wire::kRequestNonblocking) != 0) return false;
  const Session* session = sessions_.Find(connection.session);
  if (session == nullptr) return false;
  Client client;
  client.session = session->record.id;
  client.policy = session->policy;
  client.pid = request.pid;
  client.program = session->record.program;
  // The lesser of two authorities: a worker that dropped root does not speak with root's.
  client.requester.uid = request.uid;
  client.requester.root = request.uid == 0 && session->record.uid == 0;
  const int fd = request.descriptors[0];
  Answer answer;
  switch (asked.header.type) {
    case wire::Type::kConnect:
      answer = engine_->Connect(client, fd, asked.fd, FromWire(asked.remote));
      break;
    case wire::Type::kListen:
      answer = engine_->Listen(client, fd, asked.fd);
      break;
    case wire::Type::kAccept:
      answer = engine_->Accept(client, fd, asked.fd);
      break;
    case wire::Type::kRelease:
      answer = engine_->Release(client, fd);
      break;
    default:
      return false;
  }
  wire::CloseDescriptors(request);
  wire::Decision reply{};
  reply.header = wire::MakeHeader(wire::Type::kDecision, asked.header.serial);
  reply.verdict = answer.verdict;
  reply.reason = answer.reason;
  reply.latch = answer.latch;
  if (answer.verdict == wire::Verdict::kRefused) {
    const int error = wire::ReasonErrno(answer.reason);
    reply.error = error != 0 ? error : EACCES;
  }
  return Reply(connection, &reply, sizeof(reply));
}

bool Server::HandleQuery(Connection& connection, wire::Received& request) {
  const auto& query = request.As<wire::Query>();
  connection.phase = Phase::kControl;
  const auto visible = [&](const Entry& entry) {
    return request.uid == 0 || request.uid == entry.latch.uid;
  };
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
  if (entry != nullptr) reply = ToWire(entry->latch);
  reply.header = wire::MakeHeader(wire::Type::kLatch, query.header.serial);
  return Reply(connection, &reply, sizeof(reply));
}

}  // namespace latchkey::broker
