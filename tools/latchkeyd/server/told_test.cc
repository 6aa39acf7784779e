// Programs that want to be told under which latch a datagram came.
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>

#include "shim/latch_table.h"
#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;
using wire::Verdict;

constexpr char kServe[] =
    "latchkey = 1\napplication = \"app\"\n[[rule]]\nname = \"serve\"\ndirection = \"in\"\n"
    "protocol = \"udp\"\naction = \"protect\"\n";

struct Udp {
  Rig rig;
  Peer peer = rig.Attached(kServe);
  int socket = rig.kernel.NewUdp();

  Udp() { rig.kernel.sockets.at(socket).facts.local = At("0.0.0.0", 53); }
  FakeKernel::Socket& kernel() { return rig.kernel.sockets.at(socket); }
  uint64_t cookie() { return kernel().facts.cookie; }
  wire::Page& page() { return rig.sessions->all().begin()->second.page.page(); }
  wire::Decision Latches(uint32_t flags) {
    wire::SocketRequest request = Rig::SocketRequest(Type::kLatches);
    request.flags = flags;
    return rig.Ask<wire::Decision>(peer, request, {socket}).value();
  }
  uint64_t Hold() {
    return rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kHold), {socket})->latch;
  }
  // What a datagram from alice's address under her SA is told to be of.
  uint64_t Behind() {
    const wire::Endpoint remote = ToWire(At("10.9.0.2", 4000));
    for (const DatagramAdmission& each : rig.kernel.admissions) {
      return shim::LatchBehind(page().latches, cookie(), each.tag, &remote);
    }
    return 0;
  }
  int Under(uint64_t latch) {
    const wire::Endpoint remote = ToWire(At("10.9.0.2", 4000));
    return shim::SendErrorUnder(page().latches, cookie(), latch, &remote);
  }
};

TEST_CASE("Told before it is bound or after, a program finds each datagram's latch in its page") {
  Udp udp;
  const bool first = GENERATE(true, false);
  if (!first) REQUIRE(udp.Hold() != 0);
  CHECK((udp.page().flags & wire::kPageLatches) == 0);
  CHECK(udp.Latches(wire::kRequestLatches).verdict == Verdict::kBypass);
  CHECK((udp.page().flags & wire::kPageLatches) != 0);
  CHECK(udp.kernel().tells_marks);
  const uint64_t listener = first ? udp.Hold() : udp.rig.engine->LatchOf(udp.socket)->id;
  const uint64_t latch = udp.Behind();
  CHECK(latch == listener + 1);
  CHECK(udp.Under(latch) == 0);
  CHECK(udp.Under(listener) == ECONNRESET);  // none to send under
  REQUIRE(udp.rig.engine->AdminBreak(latch) == Reason::kNone);
  CHECK(udp.Under(latch) == ECONNRESET);
  REQUIRE(udp.rig.engine->AdminResume(latch) == Reason::kNone);
  CHECK(udp.Under(latch) == 0);
  CHECK(udp.Behind() == latch);
  // It wants no more.
  CHECK(udp.Latches(0).verdict == Verdict::kBypass);
  CHECK_FALSE(udp.kernel().tells_marks);
  CHECK(udp.page().latches.used == 0);
}

TEST_CASE("Who did not ask is told nothing") {
  Udp udp;
  REQUIRE(udp.Hold() != 0);
  CHECK(udp.page().latches.used == 0);
  CHECK_FALSE(udp.kernel().tells_marks);
}

TEST_CASE("Of a peer the page holds two slots, three in a rekey: no more than 128 octets") {
  static_assert(3 * sizeof(wire::LatchSlot) <= 128);
  Udp udp;
  REQUIRE(udp.Latches(wire::kRequestLatches).verdict == Verdict::kBypass);
  CHECK(udp.page().latches.used == 1);  // the socket's own
  REQUIRE(udp.Hold() != 0);
  const auto add = [&udp](uint32_t reqid, const std::string& address) {
    std::vector<KernelEvent> events;
    for (const Sa& sa : udp.rig.kernel.AddPair(reqid, address)) {
      events.push_back({KernelEvent::Kind::kSaAdded, sa});
    }
    udp.rig.engine->OnEvents(events);
  };
  for (uint32_t peers = 1; peers <= 100; ++peers) {
    if (peers > 1) add(7, "10.9.1." + std::to_string(peers));
    CHECK(udp.page().latches.used == 1 + 2 * peers);
  }
  add(7, "10.9.0.2");  // rekeyed: another tag, as long as both SAs are there
  CHECK(udp.page().latches.used == 1 + 2 * 100 + 1);
}

TEST_CASE("A connection's latch is told as the socket's") {
  Udp udp;
  REQUIRE(udp.Latches(wire::kRequestLatches | wire::kRequestMarks).verdict == Verdict::kBypass);
  CHECK(shim::WantsOf(udp.page().latches, udp.cookie()).marks);
  CHECK(shim::WantsOf(udp.page().latches, udp.cookie()).latch == 0);
  const auto policy = std::make_shared<const policy::Policy>([] {
    policy::Policy all;
    all.rules.emplace_back();
    all.rules.back().action = policy::Action::kProtect;
    return all;
  }());
  Client client;
  client.policy = policy;
  const Answer answer = udp.rig.engine->Connect(client, udp.socket, 3, At("10.9.0.2", 53));
  REQUIRE(answer.verdict == Verdict::kLatched);
  CHECK(shim::WantsOf(udp.page().latches, udp.cookie()).latch == answer.latch);
  CHECK(shim::SendErrorUnder(udp.page().latches, udp.cookie(), answer.latch, nullptr) == 0);
  REQUIRE(udp.rig.engine->AdminBreak(answer.latch) == Reason::kNone);
  CHECK(shim::SendErrorUnder(udp.page().latches, udp.cookie(), answer.latch, nullptr) ==
        ECONNRESET);
}

TEST_CASE("The next broker goes on telling, by its own latches") {
  Udp udp;
  REQUIRE(udp.Latches(wire::kRequestLatches).verdict == Verdict::kBypass);
  udp.Hold();
  const uint64_t before = udp.Behind();
  REQUIRE(before != 0);
  udp.rig.Start();
  const uint64_t after = udp.Behind();
  CHECK(after > before);
  CHECK(udp.Under(after) == 0);
  CHECK(udp.Under(before) == ECONNRESET);
}

TEST_CASE("A socket that nobody holds any more is not told") {
  Udp udp;
  REQUIRE(udp.Latches(wire::kRequestLatches).verdict == Verdict::kBypass);
  udp.Hold();
  udp.kernel().held = udp.kernel().live = false;
  for (int i = 0; i < 3; ++i) {
    udp.rig.kernel.now += 60'001;
    udp.rig.server->Tick();
  }
  CHECK(udp.page().latches.used == 0);
}

TEST_CASE("What is not UDP, and what means nothing, is refused") {
  Udp udp;
  udp.socket = udp.rig.kernel.NewSocket();
  CHECK(udp.Latches(wire::kRequestLatches).verdict == Verdict::kRefused);
  wire::SocketRequest request = Rig::SocketRequest(Type::kLatches);
  request.flags = 8;
  CHECK_FALSE(udp.rig.Ask<wire::Decision>(udp.peer, request, {udp.socket}));
}

TEST_CASE("A peer's latch is shown to who holds its socket, by its id") {
  Udp udp;
  const uint64_t listener = udp.Hold();
  const auto ask = [&](uint64_t id) {
    wire::PeerInquiry request{};
    request.header = wire::MakeHeader(Type::kInquirePeer, 0);
    request.id = id;
    return udp.rig.Ask<wire::LatchRecord>(udp.peer, request, {udp.socket}).value();
  };
  const wire::LatchRecord peer = ask(listener + 1);
  CHECK(peer.id == listener + 1);
  CHECK(peer.peer_id == std::string("alice"));
  CHECK(peer.listener == listener);
  CHECK(ask(listener).id == listener);
  CHECK(ask(listener + 2).id == 0);
  udp.socket = udp.rig.kernel.NewUdp();
  CHECK(ask(listener + 1).id == 0);
}

TEST_CASE("Peers' latches are listed, and no id of theirs comes again after a crash") {
  Udp udp;
  const uint64_t listener = udp.Hold();
  Peer control = udp.rig.Connect();
  const auto peer = udp.rig.Ask<wire::LatchRecord>(control, Rig::Query(Type::kList, listener));
  REQUIRE(peer);
  CHECK(peer->id == listener + 1);
  CHECK(udp.rig.Written().last_id == listener + 1);
  CHECK(udp.rig.Written().latches.size() == 1);
}

}  // namespace
}  // namespace latchkey::broker
