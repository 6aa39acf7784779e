#include "tools/latchkey/client.h"

#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>

#include "tools/latchkey/exchange.h"
#include "tools/latchkey/siblings.h"

namespace latchkey::tool {
namespace {

constexpr size_t kMostRecords = 100'000;

constexpr timeval kPatience{10, 0};

template <size_t N>
void PutName(char (&field)[N], const std::string& text) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(field, text.data(), length);
}

wire::Header HeaderFor(wire::Type type, size_t size, uint32_t serial) {
  return wire::Header{wire::kMagic, wire::kVersion, type, static_cast<uint32_t>(size), serial};
}

}  // namespace

std::expected<Client, int> Client::Connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return std::unexpected(ENAMETOOLONG);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return std::unexpected(errno);
  // The send time-out also bounds connect: a broker that hangs with a full backlog is a failure.
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience)) != 0 ||
      setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience)) != 0) {
    return std::unexpected(errno);
  }
  int result;
  do {
    result = connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result != 0) return std::unexpected(errno);
  return Client(std::move(fd));
}

std::expected<Client::Session, std::string> Client::Open(const std::string& program,
                                                         const std::vector<int>& policy_files,
                                                         const std::string& policy_name,
                                                         Fence fence) {
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));  // close-on-exec
  if (!self) return std::unexpected(std::string("pidfd_open: ") + std::strerror(errno));
  wire::Open open{};
  open.header = HeaderFor(wire::Type::kOpen, sizeof(open), ++serial_);
  open.flags = wire::kOpenLauncher;
  if (policy_files.empty()) open.flags |= wire::kOpenNoPolicy;
  if (policy_files.size() > 1) open.flags |= wire::kOpenSigned;
  if (fence != Fence::kNone) open.flags |= wire::kOpenFence;
  if (fence == Fence::kNeeded) open.flags |= wire::kOpenUnlatched;
  // A cut program name would be another program's: the policy's list is held against it.
  if (program.size() >= sizeof(open.program)) {
    return std::unexpected(program + ": path longer than " +
                           std::to_string(sizeof(open.program) - 1) + " octets");
  }
  PutName(open.program, program);
  PutName(open.policy, policy_name);
  std::vector<int> descriptors = policy_files;
  descriptors.push_back(self.get());

  wire::Opened opened{};
  if (const std::string why = Exchange(fd_.get(), open, descriptors, wire::Type::kOpened, opened);
      !why.empty()) {
    return std::unexpected(why);
  }
  const std::string text(opened.text, strnlen(opened.text, sizeof(opened.text)));
  if (opened.reason != wire::Reason::kNone) {
    const std::string word = wire::ReasonWord(opened.reason);
    if (text.empty()) return std::unexpected("the broker refused a session (" + word + ")");
    return std::unexpected(text.find(word) == std::string::npos ? text + " (" + word + ")" : text);
  }
  Session session;
  Token& token = session.token;
  std::copy(std::begin(opened.token), std::end(opened.token), token.begin());
  if (std::all_of(token.begin(), token.end(), [](uint8_t octet) { return octet == 0; })) {
    return std::unexpected("the broker gave no token");
  }
  session.fenced = opened.fenced == 1;
  if (fence == Fence::kNeeded && !session.fenced) return std::unexpected("the broker has no fence");
  if (!session.fenced) session.not_fenced = text;
  return session;
}

std::expected<std::optional<Latch>, std::string> Client::Ask(wire::Type type, uint64_t id) {
  wire::Query query{};
  query.header = HeaderFor(type, sizeof(query), ++serial_);
  query.id = id;
  wire::LatchRecord record{};
  if (const std::string why = Exchange(fd_.get(), query, {}, wire::Type::kLatch, record);
      !why.empty()) {
    return std::unexpected(why);
  }
  if (record.id == 0) return std::nullopt;
  auto latch = FromWire(record);
  if (!latch) return std::unexpected("the broker's answer is damaged");
  return latch;
}

template <typename Record>
std::expected<Record, std::string> Client::Fetch(wire::Type type, uint64_t id, wire::Type answer) {
  wire::Query query{};
  query.header = HeaderFor(type, sizeof(query), ++serial_);
  query.id = id;
  Record record{};
  if (const std::string why = Exchange(fd_.get(), query, {}, answer, record); !why.empty()) {
    return std::unexpected(why);
  }
  return record;
}

std::expected<std::vector<broker::OwnedEntry>, std::string> Client::Spd() {
  std::vector<broker::OwnedEntry> entries;
  while (entries.size() < kMostRecords) {
    const auto record =
        Fetch<wire::SpdRecord>(wire::Type::kSpd, entries.size(), wire::Type::kSpdEntry);
    if (!record) return std::unexpected(record.error());
    if (record->more == 0) break;
    const auto entry = broker::FromRecord(*record);
    if (!entry) return std::unexpected("the broker's answer is damaged");
    entries.push_back(*entry);
  }
  return entries;
}

std::expected<std::vector<broker::KnownSa>, std::string> Client::Sad() {
  std::vector<broker::KnownSa> sas;
  while (sas.size() < kMostRecords) {
    const auto record = Fetch<wire::SaRecord>(wire::Type::kSa, sas.size(), wire::Type::kSaEntry);
    if (!record) return std::unexpected(record.error());
    if (record->more == 0) break;
    auto known = broker::FromRecord(*record);
    if (!known) return std::unexpected("the broker's answer is damaged");
    sas.push_back(std::move(*known));
  }
  return sas;
}

std::expected<std::vector<broker::Incident>, std::string> Client::Incidents() {
  std::vector<broker::Incident> incidents;
  uint64_t before = 0;
  while (incidents.size() < kMostRecords) {
    const auto record =
        Fetch<wire::IncidentRecord>(wire::Type::kWhy, before, wire::Type::kIncident);
    if (!record) return std::unexpected(record.error());
    if (record->id == 0) break;
    auto incident = broker::FromRecord(*record);
    if (!incident || (before != 0 && incident->id >= before)) {
      return std::unexpected("the broker's answer is damaged");
    }
    before = incident->id;
    incidents.push_back(std::move(*incident));
    if (before == 1) break;
  }
  return incidents;
}

std::expected<std::vector<wire::FenceRecord>, std::string> Client::Fences() {
  std::vector<wire::FenceRecord> records;
  uint64_t last = 0;
  while (records.size() < kMostRecords) {
    const auto record = Fetch<wire::FenceRecord>(wire::Type::kFence, last, wire::Type::kFenced);
    if (!record) return std::unexpected(record.error());
    const auto ends = [](const auto& field) {
      return std::memchr(field, '\0', sizeof(field)) != nullptr;
    };
    if ((record->id != 0 && record->id <= last) || !ends(record->program) ||
        !ends(record->policy) || !ends(record->why)) {
      return std::unexpected("the broker's answer is damaged");
    }
    records.push_back(*record);
    if (record->id == 0) break;
    last = record->id;
  }
  return records;
}

std::expected<std::optional<Latch>, std::string> Client::Next(uint64_t after) {
  auto latch = Ask(wire::Type::kList, after);
  // Ids that do not rise would have us ask for ever.
  if (latch && *latch && (*latch)->id <= after) {
    return std::unexpected("the broker's answers are out of order");
  }
  return latch;
}

std::expected<std::optional<Latch>, std::string> Client::Show(uint64_t id) {
  auto latch = Ask(wire::Type::kShow, id);
  if (latch && *latch && (*latch)->id != id) {
    return std::unexpected("the broker answered about another latch");
  }
  return latch;
}

std::expected<wire::Reason, std::string> Client::Control(wire::Type type, uint64_t id) {
  const auto done = Fetch<wire::Done>(type, id, wire::Type::kDone);
  if (!done) return std::unexpected(done.error());
  return done->reason;
}

std::expected<wire::Reason, std::string> Client::Break(uint64_t id) {
  return Control(wire::Type::kBreak, id);
}

std::expected<wire::Reason, std::string> Client::Resume(uint64_t id) {
  return Control(wire::Type::kResume, id);
}

std::expected<wire::Reason, std::string> Client::Watch() { return Control(wire::Type::kWatch, 0); }

std::expected<std::optional<Event>, std::string> Client::NextEvent() {
  wire::EventRecord record{};
  const auto octets = std::as_writable_bytes(std::span(&record, 1));
  const auto came = ReceiveOctets(fd_.get(), serial_, wire::Type::kEvent, octets);
  if (!came) return std::unexpected(came.error());
  if (!*came) return std::nullopt;
  auto event = EventFromWire(record);
  if (!event) return std::unexpected("the broker's event is damaged");
  return event;
}

std::optional<bool> Client::ServesThisNamespace() const {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0 ||
      credentials.pid <= 0) {
    return std::nullopt;
  }
  const std::string theirs_path = "/proc/" + std::to_string(credentials.pid) + "/ns/net";
  struct stat ours, theirs;
  if (stat("/proc/self/ns/net", &ours) != 0 || stat(theirs_path.c_str(), &theirs) != 0) {
    return std::nullopt;
  }
  return ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

std::vector<std::string> BrokerSockets(const std::string& named) {
  if (!named.empty()) return {named};
  const char* environment = TrustedEnvironment("LATCHKEY_SOCKET");
  std::vector<std::string> paths{environment != nullptr ? environment : kDefaultSocket};
  std::vector<std::string> others;
  if (DIR* listing = opendir(kPrivateFolder); listing != nullptr) {
    while (const dirent* entry = readdir(listing)) {
      if (std::string_view(entry->d_name).ends_with(".sock")) {
        others.push_back(std::string(kPrivateFolder) + "/" + entry->d_name);
      }
    }
    closedir(listing);
  }
  std::sort(others.begin(), others.end());
  for (std::string& other : others) {
    if (other != paths.front()) paths.push_back(std::move(other));
  }
  return paths;
}

std::vector<Broker> ConnectAll(const std::string& named, std::vector<std::string>& problems) {
  std::vector<Broker> brokers;
  const std::vector<std::string> paths = BrokerSockets(named);
  for (const std::string& path : paths) {
    auto client = Client::Connect(path);
    if (!client) {
      if (client.error() != ENOENT && client.error() != ECONNREFUSED) {
        problems.push_back(path + ": " + std::strerror(client.error()));
      }
      continue;
    }
    if (named.empty() && client->ServesThisNamespace() == false) continue;
    brokers.push_back(Broker{path, std::move(*client)});
  }
  if (brokers.empty() && problems.empty()) {
    problems.push_back("no broker at " + paths.front() + ": start latchkeyd");
  }
  return brokers;
}

}  // namespace latchkey::tool
