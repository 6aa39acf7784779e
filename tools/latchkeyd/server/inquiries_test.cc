// What a program is told of its own sockets.
#include <catch2/catch.hpp>
#include <cerrno>
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
  facts.mark = Options{}.guard_mark;  // from its listener
  CHECK(Inquire(rig, peer, child)->id == 0);
  REQUIRE(rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kAccept), {child}));
  const auto told = Inquire(rig, peer, child);
  CHECK(told->state == static_cast<uint8_t>(State::kEstablished));
  CHECK(std::string(told->peer_id) == "alice");
}

struct BindingRig : Rig {
  Peer peer;
  int socket = -1;
  uint64_t id = 0;

  explicit BindingRig(const std::string& auth = "pubkey") {
    keys.has_keys = true;
    keys.by_reqid[7] = Identified::Known(
        {{"alice", "me", auth}, false, {At("10.9.0.1", 500), At("10.9.0.2", 500)}});
    peer = Attached();
    socket = kernel.NewSocket();
    id = Latch(peer, socket);
  }
  std::optional<wire::Bound> Ask(int of) {
    return Rig::Ask<wire::Bound>(peer, SocketRequest(Type::kBinding), {of});
  }
  void Tell(const std::string& own, const std::string& theirs) {
    KeyEvent event;
    event.kind = KeyEvent::Kind::kKeys;
    event.ticket = keys.next_ticket - 1;
    event.own_key = own;
    event.peer_key = theirs;
    keys.events.push_back(event);
    engine->OnKeys();
  }
  // The answer that is there, unasked.
  std::optional<wire::Bound> Answer() const {
    wire::Received answer;
    if (wire::ReceiveMessage(peer.fd.get(), answer, false) != 0) return std::nullopt;
    return answer.As<wire::Bound>();
  }
};

TEST_CASE("A binding is told when the key manager has said the keys") {
  BindingRig rig;
  CHECK_FALSE(rig.Ask(rig.socket));  // not yet
  CHECK(rig.keys.asked_keys.size() == 1);
  CHECK(rig.keys.asked_keys[0].peer_id == "alice");
  SECTION("both") {
    rig.Tell("mine", "theirs");
    const auto bound = rig.Answer();
    REQUIRE(bound);
    CHECK(bound->error == 0);
    CHECK(bound->header.serial == rig.peer.serial);
    CHECK(std::string(reinterpret_cast<const char*>(bound->octets), 23) ==
          "ipsec-end-point-sha256:");
    CHECK(bound->size == 55);
    // And again.
    CHECK_FALSE(rig.Ask(rig.socket));
    rig.Tell("mine", "theirs");
    CHECK(rig.Answer()->error == 0);
  }
  SECTION("not both") {
    rig.Tell(GENERATE("", "same"), "same");
    const auto bound = rig.Answer();
    REQUIRE(bound);
    CHECK(bound->size == 0);
    CHECK(bound->error == ENODATA);
  }
  SECTION("it broke meanwhile") {
    REQUIRE(rig.engine->AdminBreak(rig.id) == Reason::kNone);
    rig.Tell("mine", "theirs");
    CHECK(rig.Answer()->error == ENODATA);
  }
  SECTION("who asked is gone") {
    rig.Hang(rig.peer);
    rig.Tell("mine", "theirs");
    CHECK(rig.server->HasConnection(rig.peer.number) == false);
  }
  SECTION("one question at a time") {
    CHECK_FALSE(rig.Ask(rig.socket));
    CHECK(rig.peer.Ended());
  }
}

TEST_CASE("There is no binding without public keys, a latch, or an IKE SA") {
  BindingRig rig(GENERATE("psk", "eap", "manual", ""));
  CHECK(rig.Ask(rig.socket)->error == ENODATA);
  CHECK(rig.Ask(rig.kernel.NewSocket())->error == ENOTCONN);
  CHECK(rig.keys.asked_keys.empty());
}

TEST_CASE("A binding of what is written in the PAD, whatever it says, is none") {
  Rig rig;
  rig.keys.has_keys = true;
  rig.keys.by_reqid[7] = Identified::Known({{"alice", "me", "pubkey"}, true, {}});
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  rig.Latch(peer, socket);
  const auto bound = rig.Ask<wire::Bound>(peer, Rig::SocketRequest(Type::kBinding), {socket});
  REQUIRE(bound);
  CHECK(bound->error == ENODATA);
  CHECK(rig.keys.asked_keys.empty());
}

TEST_CASE("A broken latch has no binding; a key manager that cannot say is no error of the latch") {
  BindingRig rig;
  SECTION("broken") { REQUIRE(rig.engine->AdminBreak(rig.id) == Reason::kNone); }
  SECTION("no keys") { rig.keys.has_keys = false; }
  CHECK(rig.Ask(rig.socket)->error == ENODATA);
}

}  // namespace
}  // namespace latchkey::broker
