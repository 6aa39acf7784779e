// What is no good message of the protocol: it ends its connection, and does nothing else.
#include "tools/latchkeyd/server/requests_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;

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

TEST_CASE("Replies are no requests") {
  Rig rig;
  const auto type = GENERATE(from_range(std::begin(kReplies), std::end(kReplies)));
  Peer fresh = rig.Connect();
  CHECK(Ends(rig, fresh, Message(type)));
  Peer attached = rig.Attached();
  CHECK(Ends(rig, attached, Message(type)));
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
  for (const Type type : {Type::kConnect, Type::kListen, Type::kAccept, Type::kRelease, Type::kHold,
                          Type::kPeer, Type::kInquire, Type::kWish, Type::kBinding}) {
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
  CHECK(rig.sessions->all().size() == 18);  // those of Attached()
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

}  // namespace
}  // namespace latchkey::broker
