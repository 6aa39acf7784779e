// What the server's tests share: a broker over a kernel of fakes, and clients on socket pairs that
// speak the protocol message by message.
#ifndef TOOLS_LATCHKEYD_SERVER_SERVER_FIXTURE_H_
#define TOOLS_LATCHKEYD_SERVER_SERVER_FIXTURE_H_

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/fake_fence.h"
#include "tools/latchkeyd/latch/fake_kernel.h"
#include "tools/latchkeyd/latch/fake_key_manager.h"
#include "tools/latchkeyd/server/requests.h"
#include "tools/latchkeyd/server/server.h"
#include "tools/latchkeyd/server/takeover.h"

namespace latchkey::broker {

inline constexpr char kProtectAll[] =
    "latchkey = 1\napplication = \"app\"\n[[rule]]\nname = \"all\"\naction = \"protect\"\n";

// The fake kernel, its sockets told apart by the cookie of real ones: what is passed to the server
// comes out under another number.
class CookieKernel : public FakeKernel {
 public:
  int NewSocket() {
    const int fd = MakeReady(SOCK_STREAM);
    AddSocket({Address::AnyOf(Family::kV4), 0}, {});
    return fd;
  }
  int NewUdp() {
    const int fd = MakeReady(SOCK_DGRAM);
    AddUdp();
    return fd;
  }

  Result<SocketFacts> Inspect(int fd) override { return FakeKernel::Inspect(Number(fd)); }
  Result<void> SetPolicy(int fd, const SocketFacts& facts, const SocketPolicy& policy) override {
    return FakeKernel::SetPolicy(Number(fd), facts, policy);
  }
  Result<void> SetMark(int fd, const SocketFacts& facts, uint32_t value, uint32_t mask) override {
    return FakeKernel::SetMark(Number(fd), facts, value, mask);
  }
  Result<void> BindAny(int fd, const SocketFacts& facts) override {
    return FakeKernel::BindAny(Number(fd), facts);
  }
  void PushOut(int fd) override { FakeKernel::PushOut(Number(fd)); }
  void ConnectDatagrams(int fd, const SocketFacts& facts, const SocketAddress& remote,
                        uint32_t scope) override {
    FakeKernel::ConnectDatagrams(Number(fd), facts, remote, scope);
  }
  void Drain(int fd) override { FakeKernel::Drain(Number(fd)); }
  Result<void> TellMarks(int fd, bool on) override { return FakeKernel::TellMarks(Number(fd), on); }
  Result<void> FilterDatagrams(int fd, const SocketFacts& facts,
                               const std::vector<DatagramRegion>& regions) override {
    return FakeKernel::FilterDatagrams(Number(fd), facts, regions);
  }

 private:
  // Makes a real socket; the next one added is its.
  int MakeReady(int type) {
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    next_fd = fd;
    numbers_[CookieOf(fd)] = fd;
    return fd;
  }
  static uint64_t CookieOf(int fd) {
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length);
    return cookie;
  }
  int Number(int fd) const {
    const auto it = numbers_.find(CookieOf(fd));
    return it == numbers_.end() ? -1 : it->second;
  }

  std::map<uint64_t, int> numbers_;
};

// One end of a connection to the server.
struct Peer {
  UniqueFd fd;
  int number = -1;  // of the server's end
  uint32_t serial = 0;

  template <typename T>
  bool Send(T message, const std::vector<int>& descriptors = {}) const {
    return wire::SendMessage(fd.get(), &message, sizeof(message), descriptors.data(),
                             static_cast<int>(descriptors.size()), /*wait=*/false) == 0;
  }
  // True when the server closed the connection, and said nothing before it did.
  bool Ended() const {
    // It is closed beside the server's thread: soon, if it is.
    pollfd hung{fd.get(), POLLIN, 0};
    char octet = 0;
    return poll(&hung, 1, 200) == 1 && recv(fd.get(), &octet, 1, MSG_DONTWAIT) == 0;
  }
};

inline UniqueFd FileWith(const std::string& text) {
  UniqueFd file(open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  REQUIRE(file);
  REQUIRE(write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  return file;
}

struct Rig {
  std::string directory;
  CookieKernel kernel;
  FakeKeyManager keys;
  FakeFence fence;
  ServerOptions options;
  SessionTable::Limits limits;
  std::vector<std::string> log;
  std::unique_ptr<SessionTable> sessions;
  std::optional<Journal> journal;
  std::unique_ptr<Server> server;
  std::unique_ptr<Engine> engine;

  Rig() {
    char name[] = "/tmp/server_test.XXXXXX";
    directory = mkdtemp(name);
    REQUIRE(mkdir((directory + "/pages").c_str(), 0700) == 0);
    keys.Name(7, "alice");
    kernel.AddPair(7, "10.9.0.2");
    Start();
  }
  ~Rig() { std::filesystem::remove_all(directory); }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  // As a broker does that finds a journal; what ran before is gone as after kill -9.
  void Start() {
    engine.reset();
    server.reset();
    sessions = std::make_unique<SessionTable>(directory + "/pages", Options{}.guard_mark,
                                              Admission(), limits);
    JournalState old;
    Result<Journal> opened = Journal::Open(directory + "/journal", old);
    REQUIRE(opened);
    journal.emplace(std::move(*opened));
    const auto say = [this](const std::string& text) { log.push_back(text); };
    server = std::make_unique<Server>(kernel, *sessions, *journal, options, say);
    engine = std::make_unique<Engine>(kernel, keys, *server, Options{});
    server->Use(*engine);
    Legacy legacy = TakeOver(old, *sessions, kernel.now, say);
    server->Use(fence);
    server->RestoreWishes(old);
    server->RestoreTold();
    REQUIRE(engine->Start(std::move(legacy)));
    REQUIRE(journal->Compact(server->Snapshot()));
  }

  JournalState Written() const {
    UniqueFd file(open((directory + "/journal").c_str(), O_RDONLY | O_CLOEXEC));
    std::string text(1 << 20, '\0');
    text.resize(static_cast<size_t>(pread(file.get(), text.data(), text.size(), 0)));
    return ReadJournal(text);
  }

  Peer Connect() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    return TakeIn(ends[0], ends[1]);
  }
  Peer TakeIn(int client, int ours) {
    const int on = 1;
    setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    Peer peer{UniqueFd(client), ours};
    server->AddConnection(UniqueFd(ours));
    return peer;
  }

  // Sends, lets the server work, and takes its answer; nothing when there is none.
  template <typename Reply, typename Request>
  std::optional<Reply> Ask(Peer& peer, Request request, const std::vector<int>& descriptors = {},
                           int* page = nullptr) {
    request.header.serial = ++peer.serial;
    if (!peer.Send(request, descriptors)) return std::nullopt;
    Serve(peer);
    wire::Received answer;
    if (wire::ReceiveMessage(peer.fd.get(), answer, /*wait=*/false) != 0) return std::nullopt;
    CHECK(answer.header().serial == peer.serial);
    CHECK(answer.size == sizeof(Reply));
    if (page != nullptr && answer.descriptor_count == 1) {
      *page = std::exchange(answer.descriptors[0], -1);
      answer.descriptor_count = 0;
    }
    wire::CloseDescriptors(answer);
    return answer.As<Reply>();
  }

  // Waits until the server has closed, beside, all that it let go.
  void Settle() const {
    int tries = 0;
    while (server->Unclosed(getuid()) > 0 && ++tries < 10'000) usleep(1000);
    REQUIRE(server->Unclosed(getuid()) == 0);
  }

  // Lets the server take one message, and finish what it began.
  void Serve(const Peer& peer) const {
    server->OnReadable(peer.number);
    while (server->IsOpening(peer.number)) {
      pollfd text{server->TextsFd(), POLLIN, 0};
      REQUIRE(poll(&text, 1, 10'000) == 1);
      server->OnTexts();
    }
  }

  // Lets the server take one message, and takes its answer; nothing when there is none.
  template <typename Reply>
  std::optional<Reply> Take(const Peer& peer) const {
    Serve(peer);
    wire::Received answer;
    if (wire::ReceiveMessage(peer.fd.get(), answer, false) != 0) return std::nullopt;
    wire::CloseDescriptors(answer);
    return answer.As<Reply>();
  }

  std::optional<wire::Opened> Open(Peer& peer, const std::string& policy = kProtectAll) {
    const UniqueFd file = FileWith(policy);
    return Ask<wire::Opened>(peer, OpenRequest(), {file.get()});
  }
  static wire::Open OpenRequest(uint32_t flags = 0) {
    wire::Open open{};
    open.header = wire::MakeHeader(wire::Type::kOpen, 0);
    open.flags = flags;
    std::strcpy(open.program, "/usr/bin/app");
    std::strcpy(open.policy, "app.toml");
    return open;
  }
  static wire::Attach AttachRequest(const wire::Opened& opened) {
    wire::Attach attach{};
    attach.header = wire::MakeHeader(wire::Type::kAttach, 0);
    std::memcpy(attach.token, opened.token, sizeof(attach.token));
    return attach;
  }
  static wire::SocketRequest SocketRequest(wire::Type type, const std::string& remote = {}) {
    wire::SocketRequest request{};
    request.header = wire::MakeHeader(type, 0);
    if (!remote.empty()) request.remote = ToWire(At(remote, 443));
    return request;
  }
  static wire::Query Query(wire::Type type, uint64_t id) {
    wire::Query query{};
    query.header = wire::MakeHeader(type, 0);
    query.id = id;
    return query;
  }

  // A connection of a fresh session, attached.
  Peer Attached(const std::string& policy = kProtectAll) {
    Peer control = Connect();
    const auto opened = Open(control, policy);
    REQUIRE(opened);
    REQUIRE(opened->reason == Reason::kNone);
    Peer peer = Connect();
    REQUIRE(Ask<wire::Attached>(peer, AttachRequest(*opened)));
    Hang(control);
    return peer;
  }
  // Connects `socket` to `remote`; the latch's id.
  uint64_t Latch(Peer& peer, int socket, const std::string& remote = "10.9.0.2") {
    const auto decision =
        Ask<wire::Decision>(peer, SocketRequest(wire::Type::kConnect, remote), {socket});
    REQUIRE(decision);
    REQUIRE(decision->verdict == wire::Verdict::kLatched);
    kernel.sockets.at(socket).facts.tcp_state = 1;
    return decision->latch;
  }
  // Closes the client's end, and lets the server notice.
  void Hang(Peer& peer) {
    peer.fd.Reset();
    server->OnReadable(peer.number);
  }
  bool Logged(const std::string& words) const {
    for (const std::string& line : log) {
      if (line.find(words) != std::string::npos) return true;
    }
    return false;
  }
};

// Sends `message` with credentials of the test's choice (root may); false where the test may not.
template <typename T>
inline bool SendAs(const Peer& peer, T message, uint32_t uid, int descriptor = -1) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))] = {};
  iovec part{&message, sizeof(message)};
  msghdr out{};
  out.msg_iov = &part;
  out.msg_iovlen = 1;
  out.msg_control = control;
  out.msg_controllen = CMSG_SPACE(sizeof(ucred));
  cmsghdr* header = reinterpret_cast<cmsghdr*>(control);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_CREDENTIALS;
  header->cmsg_len = CMSG_LEN(sizeof(ucred));
  const ucred credentials{getpid(), uid, getgid()};
  std::memcpy(CMSG_DATA(header), &credentials, sizeof(credentials));
  if (descriptor >= 0) {
    header = reinterpret_cast<cmsghdr*>(control + CMSG_SPACE(sizeof(ucred)));
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
    out.msg_controllen = sizeof(control);
  }
  return sendmsg(peer.fd.get(), &out, MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(sizeof(message));
}

inline bool MaySpeakForOthers() {
  Rig rig;
  return SendAs(rig.Connect(), Rig::Query(wire::Type::kShow, 1), 1000);
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_SERVER_FIXTURE_H_
