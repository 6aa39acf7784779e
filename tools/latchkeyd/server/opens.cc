// Opening sessions. The policy's file is the client's, and reading it may take as long as it likes:
// that is done beside, and the session made when the text is there.

#include <sodium.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "tools/latchkeyd/server/server.h"

namespace latchkey::broker {
namespace {

constexpr off_t kMaxPolicy = 1 << 20;

template <size_t N>
bool Text(const char (&field)[N], std::string& text) {
  const char* end = std::find(field, field + N, '\0');
  if (end == field + N) return false;
  text.assign(field, end);
  return true;
}

Result<std::string> ReadFile(int fd, const std::string& what) {
  const std::string step = "read " + what;
  struct stat status {};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Fail(Reason::kBadPolicy, step, "not a regular file");
  }
  if (status.st_size > kMaxPolicy) {
    return Fail(Reason::kBadPolicy, step, "larger than 1 MiB");
  }
  std::string text(static_cast<size_t>(status.st_size), '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t count =
        pread(fd, text.data() + have, text.size() - have, static_cast<off_t>(have));
    if (count <= 0) return Fail(Reason::kBadPolicy, step, "cannot be read");
    have += static_cast<size_t>(count);
  }
  return text;
}

Result<PolicyTexts> ReadFiles(const std::vector<int>& files) {
  PolicyTexts texts;
  Result<std::string> policy = ReadFile(files[0], "policy");
  if (!policy) return std::unexpected(policy.error());
  texts.policy = std::move(*policy);
  if (files.size() < 2) return texts;
  Result<std::string> signature = ReadFile(files[1], "signature");
  if (!signature) return std::unexpected(signature.error());
  // None at all would be a policy that claims nothing.
  if (signature->empty()) return Fail(Reason::kBadSignature, "read signature", "it is empty");
  texts.signature = std::move(*signature);
  return texts;
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

bool Server::HandleOpen(Connection& connection, wire::Received& request) {
  const auto& open = request.As<wire::Open>();
  Opening opening;
  opening.serial = open.header.serial;
  SessionRecord& record = opening.record;
  opening.pid = request.pid;
  record.uid = request.uid;
  record.has_policy = (open.flags & wire::kOpenNoPolicy) == 0;
  const bool launcher = (open.flags & wire::kOpenLauncher) != 0;
  const bool has_signature = (open.flags & wire::kOpenSigned) != 0;
  const int expected = (record.has_policy ? 1 : 0) + (has_signature ? 1 : 0) + (launcher ? 1 : 0);
  constexpr uint32_t kKnown = wire::kOpenLauncher | wire::kOpenNoPolicy | wire::kOpenSigned |
                              wire::kOpenFence | wire::kOpenUnlatched;
  opening.fence = (open.flags & wire::kOpenFence) != 0;
  opening.unlatched = (open.flags & wire::kOpenUnlatched) != 0;
  // Each makes no sense without what comes before it.
  if ((opening.fence && !launcher) || (opening.unlatched && !opening.fence)) return false;
  if ((open.flags & ~kKnown) != 0 || open.reserved != 0 || (has_signature && !record.has_policy) ||
      request.descriptor_count != expected || !Text(open.program, record.program) ||
      !Text(open.policy, record.policy_name)) {
    return false;
  }
  if (launcher) {
    // It will be killed if its shim is not heard of: nobody may name another's process here.
    int& pidfd = request.descriptors[request.descriptor_count - 1];
    if (ProcessOf(pidfd) != request.pid) return false;
    opening.launched.Reset(std::exchange(pidfd, -1));
  }
  connection.phase = Phase::kControl;
  if (!record.has_policy) return FinishOpen(connection, std::move(opening), PolicyTexts());

  const uint64_t ticket = ++last_ticket_;
  connection.opening = ticket;
  openings_[ticket] = std::move(opening);
  std::vector<int> files = {std::exchange(request.descriptors[0], -1)};
  if (has_signature) files.push_back(std::exchange(request.descriptors[1], -1));
  offload_.Run(request.uid, [files, ticket, number = connection.fd.get(), texts = texts_] {
    Result<PolicyTexts> text = ReadFiles(files);
    {
      const std::lock_guard lock(texts->mutex);
      texts->done.push_back({number, ticket, std::move(text)});
      const uint64_t one = 1;
      (void)!write(texts->event.get(), &one, sizeof(one));
    }
    for (const int fd : files) close(fd);
  });
  return true;
}

void Server::OnTexts() {
  std::vector<ReadText> done;
  {
    const std::lock_guard lock(texts_->mutex);
    uint64_t count = 0;
    // Non-blocking; nothing there is no failure.
    const ssize_t size = read(texts_->event.get(), &count, sizeof(count));
    static_cast<void>(size);
    done.swap(texts_->done);
  }
  for (ReadText& text : done) {
    auto opening = openings_.extract(text.ticket);
    auto connection = connections_.find(text.connection);
    // Whoever asked may be gone, and his number another's.
    if (opening.empty() || connection == connections_.end() ||
        connection->second.opening != text.ticket) {
      continue;
    }
    connection->second.opening = 0;
    if (!FinishOpen(connection->second, std::move(opening.mapped()), std::move(text.text))) {
      End(text.connection, "an answer nobody took");
    }
  }
}

bool Server::FinishOpen(Connection& connection, Opening opening, Result<PolicyTexts> text) {
  wire::Opened reply{};
  reply.header = wire::MakeHeader(wire::Type::kOpened, opening.serial);
  Result<Session*> session = nullptr;
  const std::string program = opening.record.program;
  const uint32_t uid = opening.record.uid;
  if (text) {
    opening.record.policy_text = std::move(text->policy);
    opening.record.signature = std::move(text->signature);
    MakeRoom(uid);
    session = sessions_.Make(std::move(opening.record));
  } else {
    Error error = text.error();
    const char* ending = error.step == "read signature" ? ".minisig: " : ": ";
    error.value = opening.record.policy_name + ending + error.value;
    session = std::unexpected(error);
  }
  if (!session) {
    reply.reason = session.error().reason;
    const std::string& why = session.error().value;
    history_.Add({0, kernel_.WallSeconds(), 0, reply.reason, Flow{},
                  static_cast<uint32_t>(opening.pid), uid, program, "", why});
    std::memcpy(reply.text, why.data(), std::min(why.size(), sizeof(reply.text) - 1));
    log_("session refused: " + session.error().ToString());
  } else {
    SessionRecord& record = (*session)->record;
    const std::string& token = record.token;
    sodium_hex2bin(reply.token, sizeof(reply.token), token.data(), token.size(), nullptr, nullptr,
                   nullptr);
    connection.session = record.id;
    connection.launcher = static_cast<bool>(opening.launched);
    ++(*session)->connections;
    record.by_launcher = connection.launcher;
    record.unlatched = opening.unlatched;
    // While its policy was read its number may have become another process's.
    if (opening.fence && ProcessOf(opening.launched.get()) == opening.pid) {
      Enclose(**session, opening.pid);
    } else if (opening.fence) {
      record.fence = wire::FenceState::kLacking;
      record.not_fenced = "its process is no more";
    }
    reply.fenced = IsFenced(**session) ? 1 : 0;
    const std::string& why = record.not_fenced;
    std::memcpy(reply.text, why.data(), std::min(why.size(), sizeof(reply.text) - 1));
    if (opening.unlatched && reply.fenced == 0) {
      reply.reason = Reason::kUnsupported;
      std::memset(reply.token, 0, sizeof(reply.token));
      connection.session = 0;
      sessions_.Remove(record.id);
      return Reply(connection, &reply, sizeof(reply));
    }
    if (!opening.unlatched) (*session)->launched = std::move(opening.launched);
    journal_.Add(record);
  }
  return Reply(connection, &reply, sizeof(reply));
}

}  // namespace latchkey::broker
