// What a program is told of its own sockets.
#include <catch2/catch.hpp>
#include <string>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;

std::optional<wire::LatchRecord> Inquire(Rig& rig, Peer& peer, int socket) {
  return rig.Ask<wire::LatchRecord>(peer, Rig::SocketRequest(Type::kInquire), {socket});
}

TEST_CASE("A latched socket's latch is told, as show tells it") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  auto told = Inquire(rig, peer, socket);
  REQUIRE(told);
  CHECK(told->id == id);
  CHECK(told->state == static_cast<uint8_t>(State::kEstablished));
  CHECK(std::string(told->peer_id) == "alice");
  CHECK(std::string(told->auth) == rig.engine->database().Find(id)->latch.identity.auth);

  // The port that the kernel chose is known at once.
  rig.kernel.sockets.at(socket).facts.local = At("10.9.0.1", 40'001);
  CHECK(Inquire(rig, peer, socket)->local.port == 40'001);

  REQUIRE(rig.engine->AdminBreak(id) == Reason::kNone);
  told = Inquire(rig, peer, socket);
  REQUIRE(told);
  CHECK(told->state == static_cast<uint8_t>(State::kBroken));
  CHECK(told->reason == Reason::kAdmin);
}

TEST_CASE("What has no latch has none, whatever it is") {
  Rig rig;
  Peer peer = rig.Attached();
  CHECK(Inquire(rig, peer, rig.kernel.NewSocket())->id == 0);
  const UniqueFd file = FileWith("x");
  CHECK(Inquire(rig, peer, file.get())->id == 0);
  const int foreign = rig.kernel.NewSocket();
  rig.Latch(peer, foreign);
  rig.kernel.sockets.at(foreign).facts.own_netns = false;
  CHECK(Inquire(rig, peer, foreign)->id == 0);
}

TEST_CASE("Who was handed a socket may ask about it, in a session of his own") {
  Rig rig;
  Peer peer = rig.Attached();
  Peer other = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  const uint64_t id = rig.Latch(peer, socket);
  CHECK(Inquire(rig, other, socket)->id == id);
}

TEST_CASE("A listener and its child") {
  Rig rig;
  Peer peer = rig.Attached();
  const int listener = rig.kernel.NewSocket();
  rig.kernel.sockets.at(listener).facts.local = At("10.9.0.1", 80);
  REQUIRE(rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kListen), {listener}));
  rig.kernel.sockets.at(listener).facts.tcp_state = 10;
  CHECK(Inquire(rig, peer, listener)->state == static_cast<uint8_t>(State::kListener));
  const int child = rig.kernel.NewSocket();
  SocketFacts& facts = rig.kernel.sockets.at(child).facts;
  facts.local = At("10.9.0.1", 80);
  facts.remote = At("10.9.0.2", 40'000);
  facts.tcp_state = 1;
  CHECK(Inquire(rig, peer, child)->id == 0);
  REQUIRE(rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kAccept), {child}));
  const auto told = Inquire(rig, peer, child);
  CHECK(told->state == static_cast<uint8_t>(State::kEstablished));
  CHECK(std::string(told->peer_id) == "alice");
}

}  // namespace
}  // namespace latchkey::broker
