// Sessions over time: authority, what programs and journal are told, caps, and a restart.
#include "tools/latchkeyd/server/server.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Trouble;
using wire::Type;
using wire::Verdict;

// Sends `message` with credentials of the test's choice (root may); false where the test may not.
template <typename T>
bool SendAs(const Peer& peer, T message, uint32_t uid, int descriptor = -1) {
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

template <typename Reply>
std::optional<Reply> Take(Rig& rig, const Peer& peer) {
  rig.Serve(peer);
  wire::Received answer;
  if (wire::ReceiveMessage(peer.fd.get(), answer, false) != 0) return std::nullopt;
  wire::CloseDescriptors(answer);
  return answer.As<Reply>();
}

bool MaySpeakForOthers() {
  Rig rig;
  return SendAs(rig.Connect(), Rig::Query(Type::kShow, 1), 1000);
}

// What the page of the only session says about a socket.
Trouble TroubleOf(Rig& rig, uint64_t cookie) {
  wire::Page& page = rig.sessions->all().begin()->second.page.page();
  for (const wire::PageSlot& slot : page.slots) {
    if (slot.cookie == cookie) return slot.trouble;
  }
  return Trouble::kFree;
}

TEST_CASE("Authority is the intersection of the session's and the sender's") {
  if (!MaySpeakForOthers()) {
    WARN("not root: only the sender's own authority is tried");
    return;
  }
  Rig rig;
  const auto requester = [&](uint32_t opener, uint32_t sender) {
    Peer control = rig.Connect();
    const UniqueFd policy = FileWith(kProtectAll);
    REQUIRE(SendAs(control, Rig::OpenRequest(), opener, policy.get()));
    const auto opened = Take<wire::Opened>(rig, control);
    REQUIRE(opened);
    Peer peer = rig.Connect();
    REQUIRE(SendAs(peer, Rig::AttachRequest(*opened), sender));
    REQUIRE(Take<wire::Attached>(rig, peer));
    const int socket = rig.kernel.NewSocket();
    REQUIRE(SendAs(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), sender, socket));
    const auto decision = Take<wire::Decision>(rig, peer);
    REQUIRE(decision);
    const Entry* entry = rig.engine->database().Find(decision->latch);
    REQUIRE(entry != nullptr);
    CHECK(entry->latch.uid == sender);
    return entry->requester;
  };
  CHECK(requester(0, 0).root);
  CHECK_FALSE(requester(0, 1000).root);  // a worker that dropped root
  CHECK_FALSE(requester(1000, 0).root);  // root with an ordinary user's token
  CHECK_FALSE(requester(1000, 1000).root);
  CHECK(requester(0, 1000).uid == 1000);
}

TEST_CASE("Users see their own latches, root all") {
  if (!MaySpeakForOthers()) return;
  Rig rig;
  Peer peer = rig.Attached();
  uint64_t ids[3] = {};
  uint32_t uid = 1000;
  for (uint64_t& id : ids) {
    REQUIRE(SendAs(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), uid++,
                   rig.kernel.NewSocket()));
    const auto decision = Take<wire::Decision>(rig, peer);
    REQUIRE(decision);
    id = decision->latch;
  }
  const auto seen = [&](uint32_t who) {
    std::vector<uint64_t> list;
    Peer control = rig.Connect();
    for (uint64_t last = 0;;) {
      REQUIRE(SendAs(control, Rig::Query(Type::kList, last), who));
      const auto record = Take<wire::LatchRecord>(rig, control);
      REQUIRE(record);
      if (record->id == 0) return list;
      list.push_back(last = record->id);
    }
  };
  CHECK(seen(0) == std::vector<uint64_t>(std::begin(ids), std::end(ids)));
  CHECK(seen(1001) == std::vector<uint64_t>{ids[1]});
  CHECK(seen(5).empty());
  Peer control = rig.Connect();
  for (const uint32_t who : {1000U, 1001U}) {
    REQUIRE(SendAs(control, Rig::Query(Type::kShow, ids[0]), who));
    const auto record = Take<wire::LatchRecord>(rig, control);
    REQUIRE(record);
    CHECK(record->id == (who == 1000 ? ids[0] : 0));
  }
}

TEST_CASE("A first message without a sender is of who connected, a later one of nobody") {
  Rig rig;
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  // Sent before SO_PASSCRED is set: the kernel names nobody.
  wire::Open open = Rig::OpenRequest(wire::kOpenNoPolicy);
  REQUIRE(wire::SendMessage(ends[0], &open, sizeof(open), nullptr, 0, false) == 0);
  Peer peer = rig.TakeIn(ends[0], ends[1]);
  const auto opened = Take<wire::Opened>(rig, peer);
  REQUIRE(opened);
  REQUIRE(opened->reason == Reason::kNone);
  CHECK(rig.sessions->all().begin()->second.record.uid == getuid());

  Peer attached = rig.Attached();
  const int off = 0;
  setsockopt(attached.number, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
  const auto request = Rig::SocketRequest(Type::kConnect, "10.9.0.2");
  REQUIRE(attached.Send(request, {rig.kernel.NewSocket()}));
  const int on = 1;
  setsockopt(attached.number, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  const auto decision = Take<wire::Decision>(rig, attached);
  REQUIRE(decision);
  CHECK_FALSE(rig.engine->database().Find(decision->latch)->requester.root);
}

TEST_CASE("A break is on the page, in the journal and in the log; a close takes it off the page") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  const uint64_t cookie = rig.kernel.sockets.at(socket).facts.cookie;
  CHECK(TroubleOf(rig, cookie) == Trouble::kFree);
  CHECK(rig.Logged("latch " + std::to_string(id) + " new -> ESTABLISHED: none tcp"));

  rig.keys.Name(9, "mallory");
  for (const Sa& sa : rig.kernel.AddPair(9, "10.9.0.2")) {
    rig.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  }
  CHECK(TroubleOf(rig, cookie) == Trouble::kBroken);
  CHECK(rig.Written().latches.at(id).latch.state == State::kBroken);
  CHECK(rig.Logged("latch " + std::to_string(id) + " ESTABLISHED -> BROKEN: conflict-sa tcp "));
  CHECK(rig.Logged("peer \"alice\" rule \"all\" program /usr/bin/app pid "));

  rig.kernel.sockets.at(socket).held = false;
  rig.kernel.now += 60'000;
  rig.server->Tick();
  CHECK(TroubleOf(rig, cookie) == Trouble::kFree);
  CHECK(rig.Written().latches.empty());
}

TEST_CASE("A latch without an SA is said to be so until it has one again") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  rig.Latch(peer, socket);
  const uint64_t cookie = rig.kernel.sockets.at(socket).facts.cookie;
  const std::vector<Sa> gone = rig.kernel.sad;
  rig.kernel.sad.clear();
  for (const Sa& sa : gone) rig.engine->OnEvents({{KernelEvent::Kind::kSaDeleted, sa}});
  CHECK(TroubleOf(rig, cookie) == Trouble::kNoSa);
  rig.kernel.sad = gone;
  for (const Sa& sa : gone) rig.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  CHECK(TroubleOf(rig, cookie) == Trouble::kFree);
}

TEST_CASE("A client that takes no answers is let go") {
  Rig rig;
  Peer peer = rig.Connect();
  const wire::Query query = Rig::Query(Type::kShow, 1);
  for (int i = 0; i < 10'000 && rig.server->HasConnection(peer.number); ++i) {
    peer.Send(query);
    rig.server->OnReadable(peer.number);
  }
  CHECK_FALSE(rig.server->HasConnection(peer.number));
}

TEST_CASE("Caps: sessions and connections of one user") {
  Rig rig;
  rig.options.connections = 100;
  rig.options.connections_per_user = 10;
  rig.Start();
  std::vector<Peer> peers;
  const auto taken = [&](int tries) {
    for (int i = 0; i < tries; ++i) peers.push_back(rig.Connect());
    std::set<int> taken_in;  // by number: one that was refused may be another's again
    for (const Peer& peer : peers) {
      if (rig.server->HasConnection(peer.number)) taken_in.insert(peer.number);
    }
    return taken_in.size();
  };
  // Who connects is told by the effective user at that moment.
  const bool root = geteuid() == 0;
  if (root && seteuid(1000) != 0) WARN("cannot be another user here");
  if (geteuid() != 0) {
    CHECK(taken(20) == 10);
    CHECK(peers.back().Ended());
  }
  if (root) {
    REQUIRE(seteuid(0) == 0);
    CHECK(taken(120) == 100);
    CHECK(peers.back().Ended());
  }
  for (Peer& peer : peers) peer.fd.Reset();

  SessionRecord record;
  record.uid = 1000;
  for (int i = 0; i < 64; ++i) REQUIRE(rig.sessions->Make(record));
  const auto refused = rig.sessions->Make(record);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().reason == Reason::kLimit);
  record.uid = 1001;
  CHECK(rig.sessions->Make(record));
}

TEST_CASE("A session ends when it is idle, never while it has a latch or a connection") {
  Rig rig;
  rig.options.session_idle_ms = 3'000;
  rig.Start();
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  rig.Latch(peer, socket);
  const std::string page = rig.directory + "/pages/1";
  const auto later = [&] {
    rig.kernel.now += 3'000;
    rig.server->Tick();
    return rig.sessions->all().size();
  };
  CHECK(later() == 1);
  rig.Hang(peer);
  CHECK(later() == 1);  // the latch holds it
  CHECK(access(page.c_str(), F_OK) == 0);
  rig.kernel.sockets.at(socket).held = false;
  rig.kernel.sockets.at(socket).live = false;
  rig.kernel.now += 60'000;
  rig.server->Tick();
  CHECK(later() == 0);
  CHECK(access(page.c_str(), F_OK) != 0);
  CHECK(rig.Written().sessions.empty());
}

// A child that opens a session as a launcher does and then, as its exec would, closes the
// connection and goes on without checking in.
struct Launched {
  explicit Launched(Rig& rig) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    const int on = 1;
    setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    REQUIRE(pipe2(wake, O_CLOEXEC) == 0);
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      close(ends[1]);
      close(wake[1]);
      const int self = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
      wire::Open open = Rig::OpenRequest(wire::kOpenLauncher | wire::kOpenNoPolicy);
      wire::SendMessage(ends[0], &open, sizeof(open), &self, 1, true);
      char octet = 0;
      (void)!read(wake[0], &octet, 1);  // "exec"
      close(ends[0]);
      (void)!read(wake[0], &octet, 1);  // the program's end
      _exit(7);
    }
    control = rig.TakeIn(dup(ends[0]), ends[1]);
    close(ends[0]);
    char octet = 0;
    while (recv(ends[1], &octet, 1, MSG_PEEK) < 0) {
    }
    const auto reply = Take<wire::Opened>(rig, control);
    REQUIRE(reply);
    opened = *reply;
    REQUIRE(opened.reason == Reason::kNone);
  }
  ~Launched() {
    if (pid > 0 && !over) kill(pid, SIGKILL);
    Status();
    close(wake[0]);
    close(wake[1]);
  }
  void Exec(Rig& rig) {
    REQUIRE(write(wake[1], "x", 1) == 1);
    control.fd.Reset();  // this process' copy
    char octet = 0;
    while (recv(control.number, &octet, 1, MSG_PEEK) > 0) {
    }
    rig.server->OnReadable(control.number);
  }
  int Status() {
    if (!over) waitpid(pid, &status, 0);
    over = true;
    return status;
  }
  bool Running() {
    if (!over && waitpid(pid, &status, WNOHANG) == pid) over = true;
    return !over;
  }

  pid_t pid = -1;
  int wake[2] = {-1, -1};
  bool over = false;
  int status = 0;
  Peer control;
  wire::Opened opened{};
};

TEST_CASE("A program whose shim is not heard of after exec is killed") {
  Rig rig;
  Launched program(rig);
  rig.kernel.now += 60'000;
  rig.server->Tick();
  CHECK(program.Running());  // the launcher takes its time: it has not exec'ed yet
  program.Exec(rig);
  rig.kernel.now += 4'999;
  rig.server->Tick();
  CHECK(program.Running());
  rig.kernel.now += 1;
  rig.server->Tick();
  const int status = program.Status();
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGKILL);
  CHECK(rig.Logged("killed: /usr/bin/app: shim-not-loaded"));
}

TEST_CASE("A program whose shim checked in, or that ended by itself, is not") {
  Rig rig;
  Launched program(rig);
  program.Exec(rig);
  SECTION("checked in") {
    Peer peer = rig.Connect();
    REQUIRE(rig.Ask<wire::Attached>(peer, Rig::AttachRequest(program.opened)));
    rig.Hang(peer);
    rig.kernel.now += 60'000;
    rig.server->Tick();
    CHECK(program.Running());
  }
  SECTION("ended") {
    REQUIRE(write(program.wake[1], "x", 1) == 1);
    CHECK(WEXITSTATUS(program.Status()) == 7);
    rig.kernel.now += 60'000;
    rig.server->Tick();
  }
  CHECK_FALSE(rig.Logged("shim-not-loaded"));
}

TEST_CASE("A broker that starts anew has the sessions, latches and pages of the one before") {
  Rig rig;
  Peer control = rig.Connect();
  const auto opened = rig.Open(control);
  REQUIRE(opened);
  Peer peer = rig.Connect();
  int page = -1;
  REQUIRE(rig.Ask<wire::Attached>(peer, Rig::AttachRequest(*opened), {}, &page));
  const void* mapped = mmap(nullptr, sizeof(wire::Page), PROT_READ, MAP_SHARED, page, 0);
  REQUIRE(mapped != MAP_FAILED);
  close(page);
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  rig.kernel.sockets.at(socket).facts.remote = At("10.9.0.2", 443);
  rig.kernel.sockets.at(socket).facts.local = At("10.9.0.1", 50'000);
  { const UniqueFd stray(open((rig.directory + "/pages/77").c_str(), O_CREAT | O_RDWR, 0600)); }

  rig.Start();
  CHECK(access((rig.directory + "/pages/77").c_str(), F_OK) != 0);
  const Entry* entry = rig.engine->database().Find(id);
  REQUIRE(entry != nullptr);
  CHECK(entry->latch.state == State::kEstablished);
  REQUIRE(entry->rule != nullptr);
  CHECK(entry->rule->name == "all");
  CHECK(entry->policy == rig.sessions->all().begin()->second.policy);
  // The same token opens the same session, and new ones get another number.
  Peer again = rig.Connect();
  const auto attached = rig.Ask<wire::Attached>(again, Rig::AttachRequest(*opened));
  REQUIRE(attached);
  CHECK(attached->reason == Reason::kNone);
  rig.Latch(again, rig.kernel.NewSocket());
  Peer other = rig.Attached();
  CHECK(rig.sessions->all().size() == 2);
  // A program that mapped the page before the restart hears of a break after it.
  rig.keys.Name(9, "mallory");
  for (const Sa& sa : rig.kernel.AddPair(9, "10.9.0.2")) {
    rig.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  }
  const uint64_t cookie = rig.kernel.sockets.at(socket).facts.cookie;
  const auto& old = *static_cast<const wire::Page*>(mapped);
  CHECK(std::ranges::any_of(old.slots, [&](const wire::PageSlot& slot) {
    return slot.cookie == cookie && slot.trouble == Trouble::kBroken;
  }));
  munmap(const_cast<void*>(mapped), sizeof(wire::Page));
}

TEST_CASE("A latch that lost its session is watched all the same") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  rig.kernel.sockets.at(socket).facts.remote = At("10.9.0.2", 443);
  rig.kernel.sockets.at(socket).facts.local = At("10.9.0.1", 50'000);
  rig.journal->EndSession(1);
  rig.Start();
  CHECK(rig.Logged("latch " + std::to_string(id) + " has lost its session"));
  REQUIRE(rig.engine->database().Find(id) != nullptr);
  rig.keys.Name(9, "mallory");
  for (const Sa& sa : rig.kernel.AddPair(9, "10.9.0.2")) {
    rig.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  }
  CHECK(rig.engine->database().Find(id)->latch.state == State::kBroken);
}

}  // namespace
}  // namespace latchkey::broker
