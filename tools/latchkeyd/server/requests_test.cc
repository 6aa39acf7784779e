// The protocol message by message: what is served, and everything that ends a connection.
#include "tools/latchkeyd/server/requests.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;
using wire::Verdict;

constexpr Type kRequests[] = {
    Type::kOpen,   Type::kAttach, Type::kConnect, Type::kListen, Type::kAccept, Type::kRelease,
    Type::kList,   Type::kShow,   Type::kSpd,     Type::kSa,     Type::kWhy,    Type::kBreak,
    Type::kResume, Type::kWatch,  Type::kInquire, Type::kWish,   Type::kBinding};
constexpr Type kReplies[] = {Type::kOpened,   Type::kAttached, Type::kDecision, Type::kLatch,
                             Type::kSpdEntry, Type::kSaEntry,  Type::kIncident, Type::kDone,
                             Type::kEvent,    Type::kBound};

// Once the server has closed what it is to close.
size_t OpenDescriptors(const Rig& rig) {
  rig.Settle();
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

// A good message of `type` on its own, without its descriptors.
std::vector<char> Message(Type type) {
  wire::Header header = wire::MakeHeader(type, 9);
  std::vector<char> octets(header.size);
  if (type == Type::kOpen) {
    const wire::Open open = Rig::OpenRequest();
    std::memcpy(octets.data(), &open, sizeof(open));
  }
  std::memcpy(octets.data(), &header, sizeof(header));
  return octets;
}

// Sends octets as they are, and says whether the server ended the connection without a word.
bool Ends(Rig& rig, const Peer& peer, const std::vector<char>& octets,
          const std::vector<int>& descriptors = {}) {
  REQUIRE(wire::SendMessage(peer.fd.get(), octets.data(), static_cast<uint32_t>(octets.size()),
                            descriptors.data(), static_cast<int>(descriptors.size()), false) == 0);
  rig.Serve(peer);
  return peer.Ended() && !rig.server->HasConnection(peer.number);
}

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

TEST_CASE("Malformed messages end the connection, and nothing else") {
  Rig rig;
  Peer bystander = rig.Attached();
  Peer peer = rig.Connect();
  const auto type = GENERATE(from_range(std::begin(kRequests), std::end(kRequests)));
  std::vector<char> octets = Message(type);
  const std::vector<char> good = octets;
  auto& header = *reinterpret_cast<wire::Header*>(octets.data());
  SECTION("too short") { octets.pop_back(); }
  SECTION("too long") { octets.push_back('\0'); }
  SECTION("longer than any") { octets.resize(wire::kMaxMessage + 1); }
  SECTION("a header alone") { octets.resize(sizeof(wire::Header)); }
  SECTION("part of a header") { octets.resize(sizeof(wire::Header) - 1); }
  SECTION("one octet") { octets.resize(1); }
  SECTION("another magic") { header.magic ^= 1; }
  SECTION("another version") { ++header.version; }
  SECTION("a size that is not its own") { --header.size; }
  SECTION("a type there is not") { header.type = static_cast<Type>(99); }
  SECTION("type 0") { header.type = static_cast<Type>(0); }
  SECTION("a reply's type") { header.type = Type::kDecision; }
  const size_t before = OpenDescriptors(rig);
  const UniqueFd file = FileWith(kProtectAll);
  CHECK(Ends(rig, peer, octets, {file.get()}));
  CHECK(OpenDescriptors(rig) == before);  // one connection less, one file more
  // Others go on.
  rig.Latch(bystander, rig.kernel.NewSocket());
}

TEST_CASE("More descriptors than any message has are all closed") {
  Rig rig;
  Peer peer = rig.Connect();
  const size_t before = OpenDescriptors(rig) - 1;  // the server's end goes
  const auto type = GENERATE(Type::kAttach, Type::kOpen, Type::kConnect);
  const std::vector<char> octets = Message(type);
  const size_t count = GENERATE(3U, 253U);
  std::vector<char> control(CMSG_SPACE(sizeof(int) * count));
  iovec part{const_cast<char*>(octets.data()), octets.size()};
  msghdr out{};
  out.msg_iov = &part;
  out.msg_iovlen = 1;
  out.msg_control = control.data();
  out.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&out);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * count);
  const std::vector<int> same(count, peer.fd.get());
  std::memcpy(CMSG_DATA(header), same.data(), sizeof(int) * count);
  REQUIRE(sendmsg(peer.fd.get(), &out, 0) == static_cast<ssize_t>(octets.size()));
  rig.Serve(peer);
  CHECK_FALSE(rig.server->HasConnection(peer.number));
  CHECK(OpenDescriptors(rig) == before);
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

TEST_CASE("Replies are no requests") {
  Rig rig;
  const auto type = GENERATE(from_range(std::begin(kReplies), std::end(kReplies)));
  Peer fresh = rig.Connect();
  CHECK(Ends(rig, fresh, Message(type)));
  Peer attached = rig.Attached();
  CHECK(Ends(rig, attached, Message(type)));
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
  for (const Type type : {Type::kConnect, Type::kListen, Type::kAccept, Type::kRelease,
                          Type::kInquire, Type::kWish, Type::kBinding}) {
    CHECK(phases(type) == 4);
  }
  for (const Type type : {Type::kList, Type::kShow, Type::kSpd, Type::kSa, Type::kWhy, Type::kBreak,
                          Type::kResume, Type::kWatch}) {
    CHECK(phases(type) == 3);
  }
}

TEST_CASE("A wrong number of descriptors ends the connection") {
  Rig rig;
  const UniqueFd file = FileWith(kProtectAll);
  const UniqueFd other = FileWith(kProtectAll);
  const int f = file.get();
  const int g = other.get();
  for (const Type type : {Type::kAttach, Type::kList, Type::kShow, Type::kBreak, Type::kWatch}) {
    CHECK(Ends(rig, rig.Connect(), Message(type), {f}));
    CHECK(Ends(rig, rig.Connect(), Message(type), {f, g}));
  }
  for (const Type type : {Type::kConnect, Type::kListen, Type::kAccept, Type::kRelease,
                          Type::kInquire, Type::kWish, Type::kBinding}) {
    CHECK(Ends(rig, rig.Attached(), Message(type)));
    CHECK(Ends(rig, rig.Attached(), Message(type), {rig.kernel.NewSocket(), g}));
  }
  const auto open = [&](uint32_t flags, const std::vector<int>& descriptors) {
    std::vector<char> octets = Message(Type::kOpen);
    reinterpret_cast<wire::Open*>(octets.data())->flags = flags;
    return Ends(rig, rig.Connect(), octets, descriptors);
  };
  CHECK(open(0, {}));
  CHECK(open(0, {f, g}));
  CHECK(open(wire::kOpenNoPolicy, {f}));
  CHECK(open(wire::kOpenLauncher, {f}));
  CHECK(open(wire::kOpenLauncher | wire::kOpenNoPolicy, {}));
  CHECK(rig.sessions->all().size() == 14);  // those of Attached()
}

TEST_CASE("Bits and octets that mean nothing yet must be zero; texts must end") {
  Rig rig;
  const UniqueFd file = FileWith(kProtectAll);
  const auto open = [&](const std::function<void(wire::Open&)>& change) {
    std::vector<char> octets = Message(Type::kOpen);
    change(*reinterpret_cast<wire::Open*>(octets.data()));
    return Ends(rig, rig.Connect(), octets, {file.get()});
  };
  CHECK(open([](wire::Open& o) { o.flags = 4; }));
  CHECK(open([](wire::Open& o) { o.reserved = 1; }));
  CHECK(open([](wire::Open& o) { std::memset(o.program, 'x', sizeof(o.program)); }));
  CHECK(open([](wire::Open& o) { std::memset(o.policy, 'x', sizeof(o.policy)); }));
  CHECK(rig.sessions->all().empty());

  std::vector<char> octets = Message(Type::kConnect);
  reinterpret_cast<wire::SocketRequest*>(octets.data())->flags = 2;
  CHECK(Ends(rig, rig.Attached(), octets, {rig.kernel.NewSocket()}));

  for (const Type type : {Type::kInquire, Type::kBinding}) {
    octets = Message(type);
    reinterpret_cast<wire::SocketRequest*>(octets.data())->flags = 1;
    CHECK(Ends(rig, rig.Attached(), octets, {rig.kernel.NewSocket()}));
  }
  octets = Message(Type::kWish);
  reinterpret_cast<wire::Wish*>(octets.data())->flags = 1;
  CHECK(Ends(rig, rig.Attached(), octets, {rig.kernel.NewSocket()}));
  octets = Message(Type::kWish);
  std::memset(reinterpret_cast<wire::Wish*>(octets.data())->text, ' ', wire::kWishSize);
  CHECK(Ends(rig, rig.Attached(), octets, {rig.kernel.NewSocket()}));

  octets = Message(Type::kWatch);
  reinterpret_cast<wire::Query*>(octets.data())->id = 1;
  CHECK(Ends(rig, rig.Connect(), octets));
}

TEST_CASE("Random octets never do more than end their connection") {
  Rig rig;
  Peer bystander = rig.Attached();
  uint32_t random = 5660;
  const auto next = [&random] { return random = random * 1664525 + 1013904223; };
  for (int round = 0; round < 3000; ++round) {
    std::vector<char> octets = Message(kRequests[(next() >> 16) % std::size(kRequests)]);
    for (uint32_t changes = (next() >> 16) % 4; changes > 0; --changes) {
      octets[(next() >> 8) % octets.size()] = static_cast<char>(next() >> 16);
    }
    Peer peer = rig.Connect();
    wire::SendMessage(peer.fd.get(), octets.data(), static_cast<uint32_t>(octets.size()), nullptr,
                      0, false);
    rig.server->OnReadable(peer.number);
    rig.Hang(peer);
  }
  rig.Latch(bystander, rig.kernel.NewSocket());
  CHECK(rig.sessions->all().size() == 1);
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
