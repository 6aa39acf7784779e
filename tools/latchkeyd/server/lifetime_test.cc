// Programs and brokers that come and go: the kill of what runs without its shim, and a restart.
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
    const auto reply = rig.Take<wire::Opened>(control);
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

TEST_CASE("A broker that starts anew knows who vouched, and gives no id again") {
  Rig rig;
  rig.keys.by_reqid[7] = Identified::Known({{"alice", "me", "pubkey"}, true, {}});
  rig.keys.events.emplace_back();
  rig.engine->OnKeys();
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  rig.kernel.sockets.at(socket).facts.remote = At("10.9.0.2", 443);
  rig.kernel.sockets.at(socket).facts.local = At("10.9.0.1", 50'000);
  CHECK(rig.Written().vouchers.size() == 2);
  rig.keys.by_reqid.clear();  // and its key manager with it
  for (int i = 0; i < 2; ++i) {
    rig.Start();
    REQUIRE(rig.engine->database().Find(id) != nullptr);
    CHECK(rig.engine->database().Find(id)->latch.state == State::kEstablished);
    CHECK(rig.Written().vouchers.size() == 2);
  }
  rig.kernel.now += Options{}.km_grace_ms;
  rig.engine->Tick();
  CHECK(rig.engine->database().Find(id)->latch.reason == Reason::kKmLost);
  rig.kernel.sockets.at(socket).live = rig.kernel.sockets.at(socket).held = false;
  rig.Start();
  CHECK(rig.engine->database().entries().empty());
  CHECK(rig.engine->database().last_id() == id);
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
