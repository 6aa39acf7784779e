// Sessions over time: authority, what programs and journal are told, caps, and a restart.
#include "tools/latchkeyd/server/server.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Trouble;
using wire::Type;

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
    const auto opened = rig.Take<wire::Opened>(control);
    REQUIRE(opened);
    Peer peer = rig.Connect();
    REQUIRE(SendAs(peer, Rig::AttachRequest(*opened), sender));
    REQUIRE(rig.Take<wire::Attached>(peer));
    const int socket = rig.kernel.NewSocket();
    REQUIRE(SendAs(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), sender, socket));
    const auto decision = rig.Take<wire::Decision>(peer);
    REQUIRE(decision);
    const Entry* entry = rig.engine->database().Find(decision->latch);
    REQUIRE(entry != nullptr);
    CHECK(entry->latch.uid == sender);
    return entry->requester;
  };
  CHECK(requester(0, 0).grants == policy::Grants::All());
  CHECK(requester(0, 1000).grants.None());  // a worker that dropped root
  CHECK(requester(1000, 0).grants.None());  // root with an ordinary user's token
  CHECK(requester(1000, 1000).grants.None());
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
    const auto decision = rig.Take<wire::Decision>(peer);
    REQUIRE(decision);
    id = decision->latch;
  }
  const auto seen = [&](uint32_t who) {
    std::vector<uint64_t> list;
    Peer control = rig.Connect();
    for (uint64_t last = 0;;) {
      REQUIRE(SendAs(control, Rig::Query(Type::kList, last), who));
      const auto record = rig.Take<wire::LatchRecord>(control);
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
    const auto record = rig.Take<wire::LatchRecord>(control);
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
  const auto opened = rig.Take<wire::Opened>(peer);
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
  const auto decision = rig.Take<wire::Decision>(attached);
  REQUIRE(decision);
  CHECK(rig.engine->database().Find(decision->latch)->requester.grants.None());
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

}  // namespace
}  // namespace latchkey::broker
