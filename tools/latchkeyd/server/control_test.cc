// What control programs do to latches, and what they are told of them.
#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;

// The next event that waits for a watcher; nothing when there is none.
std::optional<wire::EventRecord> Next(const Peer& watcher) {
  wire::Received got;
  if (wire::ReceiveMessage(watcher.fd.get(), got, /*wait=*/false) != 0) return std::nullopt;
  REQUIRE(got.header().type == Type::kEvent);
  CHECK(got.descriptor_count == 0);
  return got.As<wire::EventRecord>();
}

Peer Watcher(Rig& rig) {
  Peer watcher = rig.Connect();
  const auto done = rig.Ask<wire::Done>(watcher, Rig::Query(Type::kWatch, 0));
  REQUIRE(done);
  REQUIRE(done->reason == Reason::kNone);
  return watcher;
}

Reason Ask(Rig& rig, Peer& peer, Type type, uint64_t id) {
  const auto done = rig.Ask<wire::Done>(peer, Rig::Query(type, id));
  REQUIRE(done);
  CHECK(done->header.type == Type::kDone);
  return done->reason;
}

TEST_CASE("A latch is broken on demand, and its program told why") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  Peer control = rig.Connect();
  CHECK(Ask(rig, control, Type::kBreak, id + 1) == Reason::kBadRequest);
  CHECK(Ask(rig, control, Type::kResume, id) == Reason::kBadRequest);
  CHECK(Ask(rig, control, Type::kBreak, id) == Reason::kNone);
  CHECK(rig.kernel.sockets.at(socket).aborted);
  CHECK(rig.Logged("latch " + std::to_string(id) + " ESTABLISHED -> BROKEN: admin tcp "));
  CHECK(rig.Logged("latch " + std::to_string(id) + " broken by uid "));
  CHECK(rig.Written().latches.at(id).latch.reason == Reason::kAdmin);
  CHECK(Ask(rig, control, Type::kBreak, id) == Reason::kBadRequest);
  const auto why = rig.Ask<wire::IncidentRecord>(control, Rig::Query(Type::kWhy, 0));
  REQUIRE(why);
  CHECK(why->latch == id);
  CHECK(why->reason == Reason::kAdmin);
}

TEST_CASE("Only root breaks what is another's; to others it is not there") {
  if (!MaySpeakForOthers()) {
    WARN("not root: cannot speak for others");
    return;
  }
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  REQUIRE(SendAs(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), 1000, socket));
  const auto decision = rig.Take<wire::Decision>(peer);
  REQUIRE(decision);
  const uint64_t id = decision->latch;
  REQUIRE(id != 0);
  const auto ask = [&](uint32_t uid) {
    Peer control = rig.Connect();
    REQUIRE(SendAs(control, Rig::Query(Type::kBreak, id), uid));
    const auto done = rig.Take<wire::Done>(control);
    REQUIRE(done);
    return done->reason;
  };
  CHECK(ask(1001) == Reason::kBadRequest);
  CHECK(rig.engine->database().Find(id)->latch.state == State::kEstablished);
  CHECK(ask(1000) == Reason::kNone);
  CHECK(rig.engine->database().Find(id)->latch.state == State::kBroken);
}

TEST_CASE("A watcher hears of every change, in order, with its own serial") {
  Rig rig;
  Peer watcher = Watcher(rig);
  CHECK_FALSE(Next(watcher));
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);

  auto event = Next(watcher);
  REQUIRE(event);
  CHECK(event->header.serial == watcher.serial);
  CHECK(event->time == rig.kernel.WallSeconds());
  CHECK(event->from == event->latch.state);  // new
  CHECK(event->stalled == wire::kStallNone);
  CHECK(event->direction == static_cast<uint8_t>(Direction::kOut));
  CHECK(event->latch.id == id);
  CHECK(std::string(event->latch.peer_id) == "alice");
  CHECK(FromWire(event->latch));

  const std::vector<Sa> gone = rig.kernel.sad;
  rig.kernel.sad.clear();
  for (const Sa& sa : gone) rig.engine->OnEvents({{KernelEvent::Kind::kSaDeleted, sa}});
  event = Next(watcher);
  REQUIRE(event);
  CHECK(event->stalled == wire::kStallBegins);
  CHECK(event->latch.state == static_cast<uint8_t>(State::kEstablished));
  rig.kernel.sad = gone;
  for (const Sa& sa : gone) rig.engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
  event = Next(watcher);
  REQUIRE(event);
  CHECK(event->stalled == wire::kStallEnds);

  Peer control = rig.Connect();
  REQUIRE(Ask(rig, control, Type::kBreak, id) == Reason::kNone);
  event = Next(watcher);
  REQUIRE(event);
  CHECK(event->from == static_cast<uint8_t>(State::kEstablished));
  CHECK(event->latch.state == static_cast<uint8_t>(State::kBroken));
  CHECK(event->latch.reason == Reason::kAdmin);

  rig.kernel.sockets.at(socket).held = false;
  rig.kernel.sockets.at(socket).live = false;
  rig.kernel.now += 60'000;
  rig.server->Tick();
  event = Next(watcher);
  REQUIRE(event);
  CHECK(event->latch.state == static_cast<uint8_t>(State::kClosed));
  CHECK_FALSE(Next(watcher));
}

TEST_CASE("A watcher hears of its user's latches alone, root's of all") {
  if (!MaySpeakForOthers()) {
    WARN("not root: cannot speak for others");
    return;
  }
  Rig rig;
  const auto watch = [&](uint32_t uid) {
    Peer watcher = rig.Connect();
    REQUIRE(SendAs(watcher, Rig::Query(Type::kWatch, 0), uid));
    const auto done = rig.Take<wire::Done>(watcher);
    REQUIRE(done);
    REQUIRE(done->reason == Reason::kNone);
    return watcher;
  };
  const Peer root = watch(0);
  const Peer owner = watch(1000);
  const Peer other = watch(1001);
  Peer peer = rig.Attached();
  REQUIRE(
      SendAs(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), 1000, rig.kernel.NewSocket()));
  REQUIRE(rig.Take<wire::Decision>(peer));
  CHECK(Next(root));
  CHECK(Next(owner));
  CHECK_FALSE(Next(other));
}

TEST_CASE("On a connection that watches nothing else is asked") {
  Rig rig;
  const auto type = GENERATE(Type::kList, Type::kWatch, Type::kBreak, Type::kAttach);
  Peer watcher = Watcher(rig);
  if (type == Type::kAttach) {
    REQUIRE(watcher.Send(Rig::AttachRequest({})));
  } else {
    REQUIRE(watcher.Send(Rig::Query(type, 0)));
  }
  rig.Serve(watcher);
  CHECK(watcher.Ended());
  // And events go on for others.
  Peer peer = rig.Attached();
  rig.Latch(peer, rig.kernel.NewSocket());
}

TEST_CASE("A watcher that does not read is ended, and holds up nobody") {
  Rig rig;
  Peer deaf = Watcher(rig);
  Peer watcher = Watcher(rig);
  Peer peer = rig.Attached();
  const Entry* entry = rig.engine->database().Find(rig.Latch(peer, rig.kernel.NewSocket()));
  REQUIRE(entry != nullptr);
  REQUIRE(Next(watcher));
  int told = 1;
  for (; rig.server->HasConnection(deaf.number) && told < 100'000; ++told) {
    rig.server->OnStall(*entry, true);
    REQUIRE(Next(watcher));
  }
  CHECK(told > 50);  // a burst is taken
  CHECK_FALSE(rig.server->HasConnection(deaf.number));
  CHECK(rig.Logged("connection ended: a watcher that does not take its events"));
  // All that it was sent is there, then the end: it knows that it missed something.
  int heard = 0;
  while (Next(deaf)) ++heard;
  CHECK(heard == told - 1);
  CHECK(deaf.Ended());
  rig.server->OnStall(*entry, false);
  CHECK(Next(watcher));
}

TEST_CASE("A watcher that goes is forgotten") {
  Rig rig;
  Peer watcher = Watcher(rig);
  rig.Hang(watcher);
  Peer peer = rig.Attached();
  rig.Latch(peer, rig.kernel.NewSocket());
  CHECK_FALSE(rig.Logged("a watcher that does not"));
  // Gone, and not noticed yet.
  Peer second = Watcher(rig);
  second.fd.Reset();
  rig.Latch(peer, rig.kernel.NewSocket());
  CHECK_FALSE(rig.server->HasConnection(second.number));
}

TEST_CASE("Caps: watchers of one user, and in all; root's are not counted") {
  if (!MaySpeakForOthers()) {
    WARN("not root: cannot speak for others");
    return;
  }
  Rig rig;
  rig.options.watchers = 5;
  rig.options.watchers_per_user = 3;
  rig.Start();
  std::vector<Peer> peers;
  const auto watch = [&](uint32_t uid) {
    peers.push_back(rig.Connect());
    REQUIRE(SendAs(peers.back(), Rig::Query(Type::kWatch, 0), uid));
    const auto done = rig.Take<wire::Done>(peers.back());
    REQUIRE(done);
    return done->reason;
  };
  for (int i = 0; i < 3; ++i) CHECK(watch(1000) == Reason::kNone);
  CHECK(watch(1000) == Reason::kLimit);
  CHECK(watch(1001) == Reason::kNone);
  CHECK(watch(1001) == Reason::kNone);
  CHECK(watch(1001) == Reason::kLimit);
  for (int i = 0; i < 5; ++i) CHECK(watch(0) == Reason::kNone);
  // Who was refused may go on as a control program.
  CHECK(Ask(rig, peers[3], Type::kBreak, 1) == Reason::kBadRequest);
  rig.Hang(peers[0]);
  CHECK(watch(1000) == Reason::kNone);
}

}  // namespace
}  // namespace latchkey::broker
