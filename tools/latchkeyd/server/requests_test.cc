// The protocol message by message: what is served, and everything that ends a connection.
#include "tools/latchkeyd/server/requests_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;
using wire::Verdict;

TEST_CASE("Every type of the wire is a request with a row, or a reply") {
  for (uint32_t number = 0; number <= 0xffff; ++number) {
    const auto type = static_cast<Type>(number);
    const bool request = std::ranges::find(kRequests, type) != std::end(kRequests);
    const bool reply = std::ranges::find(kReplies, type) != std::end(kReplies);
    CAPTURE(number);
    REQUIRE((wire::SizeOf(type) != 0) == (request || reply));
    REQUIRE((RequestTable::Find(type) != nullptr) == request);
  }
  for (const Type type : kRequests) {
    const RequestTable::Row* row = RequestTable::Find(type);
    CHECK(row->phases != 0);
    CHECK(row->most_descriptors <= wire::kMaxDescriptors);
  }
}

TEST_CASE("A session is opened, a process attached, a socket latched and shown") {
  Rig rig;
  Peer control = rig.Connect();
  const auto opened = rig.Open(control);
  REQUIRE(opened);
  CHECK(opened->reason == Reason::kNone);
  CHECK(std::ranges::any_of(opened->token, [](uint8_t octet) { return octet != 0; }));
  REQUIRE(rig.Written().sessions.size() == 1);
  CHECK(rig.Written().sessions.begin()->second.policy_text == kProtectAll);

  Peer peer = rig.Connect();
  int page = -1;
  const auto attached = rig.Ask<wire::Attached>(peer, Rig::AttachRequest(*opened), {}, &page);
  REQUIRE(attached);
  CHECK(attached->reason == Reason::kNone);
  REQUIRE(page >= 0);
  CHECK((fcntl(page, F_GETFL) & O_ACCMODE) == O_RDONLY);
  wire::Header magic{};
  CHECK(pread(page, &magic, 4, 0) == 4);
  CHECK(magic.magic == wire::kPageMagic);
  close(page);

  const int socket = rig.kernel.NewSocket();
  const size_t before = OpenDescriptors(rig);
  const auto decision =
      rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), {socket});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kLatched);
  CHECK(decision->reason == Reason::kNone);
  CHECK(decision->error == 0);
  CHECK(OpenDescriptors(rig) == before);
  // Written down before it was answered.
  CHECK(rig.Written().latches.contains(decision->latch));

  const auto shown = rig.Ask<wire::LatchRecord>(control, Rig::Query(Type::kShow, decision->latch));
  REQUIRE(shown);
  CHECK(shown->id == decision->latch);
  CHECK(std::string(shown->peer_id) == "alice");
  CHECK(std::string(shown->program) == "/usr/bin/app");
  const auto none = rig.Ask<wire::LatchRecord>(control, Rig::Query(Type::kShow, 1234));
  REQUIRE(none);
  CHECK(none->id == 0);
}

TEST_CASE("Refusals bring their errno; a bypass brings none") {
  Rig rig;
  Peer peer = rig.Attached(
      "latchkey = 1\napplication = \"app\"\n"
      "[[rule]]\nremote = [\"10.9.0.2\"]\naction = \"protect\"\n"
      "[[rule]]\nremote = [\"10.9.0.3\"]\naction = \"protect\"\n"
      "[[rule]]\nremote = [\"10.9.0.4\"]\naction = \"bypass\"\n"
      "[default]\naction = \"discard\"\n");
  const auto ask = [&](const std::string& remote) {
    return rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kConnect, remote),
                                   {rig.kernel.NewSocket()});
  };
  auto decision = ask("10.9.0.3");
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kRefused);
  CHECK(decision->reason == Reason::kNoSa);
  CHECK(decision->error == ENOKEY);
  CHECK(rig.Logged("refused: no-sa tcp"));
  decision = ask("10.9.0.5");
  REQUIRE(decision);
  CHECK(decision->error == EACCES);
  decision = ask("10.9.0.4");
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kBypass);
  CHECK(decision->error == 0);
  // What is no socket of the program's is refused too, and nothing worse.
  const UniqueFd file = FileWith("x");
  decision =
      rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), {file.get()});
  REQUIRE(decision);
  CHECK(decision->error == EINVAL);
}

TEST_CASE("Listen, accept and release are served") {
  Rig rig;
  Peer peer = rig.Attached();
  const int listener = rig.kernel.NewSocket();
  rig.kernel.sockets.at(listener).facts.local = At("10.9.0.1", 80);
  auto decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kListen), {listener});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kLatched);
  rig.kernel.sockets.at(listener).facts.tcp_state = 10;
  const int child = rig.kernel.NewSocket();
  SocketFacts& facts = rig.kernel.sockets.at(child).facts;
  facts.local = At("10.9.0.1", 80);
  facts.remote = At("10.9.0.2", 40'000);
  facts.tcp_state = 1;
  facts.mark = Options{}.guard_mark;  // from its listener
  decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kAccept), {child});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kLatched);
  const uint64_t id = decision->latch;
  facts.tcp_state = 7;
  decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kRelease), {child});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kBypass);
  CHECK(rig.engine->database().Find(id) == nullptr);
}

TEST_CASE("An unconnected UDP socket is held, and asked about; the wait for keys is answered") {
  Rig rig;
  Peer peer = rig.Attached(
      "latchkey = 1\napplication = \"app\"\n"
      "[[rule]]\nprotocol = \"udp\"\ndirection = \"in\"\naction = \"protect\"\n");
  const int socket = rig.kernel.NewUdp();
  rig.kernel.sockets.at(socket).facts.local = At("0.0.0.0", 53);
  auto decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kHold), {socket});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kLatched);
  const uint64_t latch = decision->latch;
  CHECK(rig.Written().latches.at(latch).latch.state == State::kListener);
  CHECK(rig.Written().latches.at(latch).latch.flow.protocol == kProtocolUdp);
  CHECK(rig.Logged("LISTENER: none udp 0.0.0.0:53"));
  decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kPeer, "10.9.0.2"), {socket});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kLatched);
  CHECK(decision->latch == latch);
  decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kPeer, "10.9.0.77"), {socket});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kRefused);
  CHECK(decision->reason == Reason::kNoSa);
  CHECK(decision->error != 0);
  CHECK(rig.Logged("refused: no-sa udp "));
  rig.keys.negotiates = true;
  decision = rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kPeer, "10.9.0.77"), {socket});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kWait);
  // A TCP socket is none of that.
  Peer other = rig.Attached();
  decision =
      rig.Ask<wire::Decision>(other, Rig::SocketRequest(Type::kHold), {rig.kernel.NewSocket()});
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kRefused);
  CHECK(decision->reason == Reason::kUnsupported);
}

TEST_CASE("A client's socket that lingers holds up nobody, whichever way it came") {
  Rig rig;
  Peer bystander = rig.Attached();
  // A connection whose last close waits for data that the other end does not take.
  const auto listener = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(listen(listener.get(), 1) == 0);
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  auto* name = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(getsockname(listener.get(), name, &length) == 0);
  UniqueFd lingering(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(connect(lingering.get(), name, length) == 0);
  const std::string block(65536, 'x');
  while (send(lingering.get(), block.data(), block.size(), MSG_DONTWAIT) > 0) {
  }
  const linger wait{1, 2};
  REQUIRE(setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &wait, sizeof(wait)) == 0);

  Peer peer = rig.Attached();
  std::vector<char> octets = Message(Type::kRelease);
  const int way = GENERATE(0, 1, 2);
  if (way == 1) octets.pop_back();                               // a malformed message
  if (way == 2) REQUIRE(peer.Send(Rig::Query(Type::kList, 0)));  // behind what ends the connection
  REQUIRE(wire::SendMessage(peer.fd.get(), octets.data(), static_cast<uint32_t>(octets.size()),
                            std::array{lingering.get()}.data(), 1, false) == 0);
  lingering.Reset();
  const auto start = std::chrono::steady_clock::now();
  rig.server->OnReadable(peer.number);
  rig.Latch(bystander, rig.kernel.NewSocket());
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
  rig.Settle();
}

TEST_CASE("Each request in each phase: what the table does not allow ends the connection") {
  Rig rig;
  const auto type = GENERATE(from_range(std::begin(kRequests), std::end(kRequests)));
  const RequestTable::Row* row = RequestTable::Find(type);
  for (const Phase phase : {Phase::kFresh, Phase::kControl, Phase::kAttached}) {
    CAPTURE(static_cast<int>(type), static_cast<int>(phase));
    Peer peer = rig.Connect();
    if (phase == Phase::kControl) REQUIRE(rig.Open(peer));
    if (phase == Phase::kAttached) peer = rig.Attached();
    std::vector<int> descriptors;
    const UniqueFd file = FileWith(kProtectAll);
    if (type == Type::kOpen) descriptors.push_back(file.get());
    if (row->fewest_descriptors == 1) descriptors.push_back(rig.kernel.NewSocket());
    const bool allowed = (row->phases & static_cast<uint8_t>(phase)) != 0;
    CHECK(Ends(rig, peer, Message(type), descriptors) == !allowed);
    CHECK(rig.server->HasConnection(peer.number) == allowed);
  }
}

TEST_CASE("The table's phases are those of docs/PROTOCOL.md") {
  const auto phases = [](Type type) { return RequestTable::Find(type)->phases; };
  CHECK(phases(Type::kOpen) == 1);
  CHECK(phases(Type::kAttach) == 1);
  for (const Type type : {Type::kConnect, Type::kListen, Type::kAccept, Type::kRelease, Type::kHold,
                          Type::kPeer, Type::kInquire, Type::kWish, Type::kBinding}) {
    CHECK(phases(type) == 4);
  }
  for (const Type type : {Type::kList, Type::kShow, Type::kSpd, Type::kSa, Type::kWhy, Type::kBreak,
                          Type::kResume, Type::kWatch}) {
    CHECK(phases(type) == 3);
  }
}

TEST_CASE("An unknown token is no session") {
  Rig rig;
  Peer control = rig.Connect();
  auto opened = rig.Open(control);
  REQUIRE(opened);
  const auto right = *opened;
  opened->token[31] ^= 1;
  Peer peer = rig.Connect();
  const auto attached = rig.Ask<wire::Attached>(peer, Rig::AttachRequest(*opened));
  REQUIRE(attached);
  CHECK(attached->reason == Reason::kNoSession);
  // It is attached to nothing.
  CHECK_FALSE(rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"),
                                      {rig.kernel.NewSocket()}));
  CHECK(peer.Ended());
  Peer again = rig.Connect();
  const auto good = rig.Ask<wire::Attached>(again, Rig::AttachRequest(right));
  REQUIRE(good);
  CHECK(good->reason == Reason::kNone);
}

}  // namespace
}  // namespace latchkey::broker
