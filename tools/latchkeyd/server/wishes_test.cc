#include "tools/latchkeyd/server/wishes.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <string>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using wire::Type;
using wire::Verdict;

constexpr char kAlice[] =
    "[[rule]]\naction = \"protect\"\npeer = \"p\"\n[peer.p]\nid = [\"alice\"]\n";
constexpr char kCarol[] =
    "[[rule]]\naction = \"protect\"\npeer = \"p\"\n[peer.p]\nid = [\"carol\"]\n";
constexpr char kNothing[] = "latchkey = 1\napplication = \"app\"\n";

std::optional<wire::Decision> Wish(Rig& rig, Peer& peer, int socket, const std::string& text) {
  wire::Wish wish{};
  wish.header = wire::MakeHeader(Type::kWish, 0);
  std::memcpy(wish.text, text.data(), text.size());
  return rig.Ask<wire::Decision>(peer, wish, {socket});
}

std::optional<wire::Decision> Connect(Rig& rig, Peer& peer, int socket) {
  return rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kConnect, "10.9.0.2"), {socket});
}

TEST_CASE("The table: one for each socket, and none for sockets that are gone") {
  WishTable table;
  CHECK(table.empty());
  const auto policy = std::make_shared<const policy::Policy>();
  CHECK(table.Put({1, 11, 5, 1000, "a"}, policy));
  CHECK_FALSE(table.Put({1, 11, 5, 1000, "b"}, nullptr));
  CHECK(table.Put({2, 12, 5, 1000, "c"}, policy));
  CHECK(table.CountOf(1000) == 2);
  CHECK(table.Find(1) == policy);
  CHECK(table.Find(3) == nullptr);
  CHECK(table.Prune({12}).empty());
  CHECK(table.Prune({11, 12}).empty());  // it was on its way
  CHECK(table.Prune({12}).empty());
  CHECK(table.Prune({12}) == std::vector<uint64_t>{1});
  CHECK(table.CountOf(1000) == 1);
  CHECK(table.Records().size() == 1);
  CHECK(table.Records().at(2).text == "c");
}

TEST_CASE("A request is held to, and shown by its name") {
  Rig rig;
  Peer peer = rig.Attached(GENERATE(kNothing, kProtectAll));
  const int socket = rig.kernel.NewSocket();
  auto decision = Wish(rig, peer, socket, kAlice);
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kBypass);
  // From then on nothing leaves it beside the broker's own word.
  CHECK(rig.kernel.sockets.at(socket).facts.mark == Options{}.guard_mark);
  decision = Connect(rig, peer, socket);
  REQUIRE(decision);
  CHECK(decision->verdict == Verdict::kLatched);
  const Latch& latch = rig.engine->database().Find(decision->latch)->latch;
  CHECK(latch.rule == "request");
  CHECK(latch.policy == "app");
  CHECK_FALSE(latch.implicit);
}

TEST_CASE("A request that the peer does not meet refuses it, again and again") {
  Rig rig;
  Peer peer = rig.Attached(GENERATE(kNothing, kProtectAll));
  const int socket = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, socket, kCarol)->verdict == Verdict::kBypass);
  CHECK(Connect(rig, peer, socket)->error == EKEYREJECTED);
  CHECK(Connect(rig, peer, socket)->error == EKEYREJECTED);
  // Others are held to the policy alone.
  const int other = rig.kernel.NewSocket();
  CHECK(Connect(rig, peer, other)->verdict != Verdict::kRefused);
}

TEST_CASE("A request never gets less than the policy asks") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, socket, "[[rule]]\naction = \"bypass\"\n")->verdict == Verdict::kBypass);
  const auto decision = Connect(rig, peer, socket);
  CHECK(decision->error == EACCES);
  CHECK(decision->reason == Reason::kUnprivilegedBypass);
  CHECK(rig.kernel.sockets.at(socket).facts.mark != 0);
}

TEST_CASE("Once, before it is used, and only what is a request") {
  Rig rig;
  Peer peer = rig.Attached();
  const int socket = rig.kernel.NewSocket();
  auto decision = Wish(rig, peer, socket, "[[rule]]\naction = \"wave\"\n");
  CHECK(decision->error == EINVAL);
  CHECK(rig.Logged("bad-request"));
  CHECK(rig.Logged("request:2:"));
  CHECK(rig.kernel.sockets.at(socket).facts.mark == 0);
  CHECK(Wish(rig, peer, socket, kAlice)->verdict == Verdict::kBypass);
  CHECK(Wish(rig, peer, socket, kCarol)->error == EALREADY);

  const int used = rig.kernel.NewSocket();
  rig.Latch(peer, used);
  CHECK(Wish(rig, peer, used, kAlice)->error == EISCONN);
  rig.kernel.sockets.at(used).facts.tcp_state = 7;  // reset; its latch is there still
  CHECK(Wish(rig, peer, used, kAlice)->error == EISCONN);
  const int listens = rig.kernel.NewSocket();
  rig.kernel.sockets.at(listens).facts.tcp_state = 10;
  CHECK(Wish(rig, peer, listens, kAlice)->error == EISCONN);

  const int foreign = rig.kernel.NewSocket();
  rig.kernel.sockets.at(foreign).facts.own_netns = false;
  CHECK(Wish(rig, peer, foreign, kAlice)->error == EACCES);
  const UniqueFd file = FileWith("x");
  CHECK(Wish(rig, peer, file.get(), kAlice)->error == EINVAL);
}

TEST_CASE("A listener's request holds for its children") {
  Rig rig;
  Peer peer = rig.Attached(kNothing);
  const auto listen = [&](const std::string& wish) {
    const int listener = rig.kernel.NewSocket();
    rig.kernel.sockets.at(listener).facts.local = At("10.9.0.1", 80);
    REQUIRE(Wish(rig, peer, listener, wish)->verdict == Verdict::kBypass);
    const auto decision =
        rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kListen), {listener});
    if (decision->verdict == Verdict::kLatched) {
      rig.kernel.sockets.at(listener).facts.tcp_state = 10;
    }
    return std::pair(listener, *decision);
  };
  const auto accept = [&] {
    const int child = rig.kernel.NewSocket();
    SocketFacts& facts = rig.kernel.sockets.at(child).facts;
    facts.local = At("10.9.0.1", 80);
    facts.remote = At("10.9.0.2", 40'000);
    facts.tcp_state = 1;
    facts.mark = Options{}.guard_mark;  // from its listener
    return *rig.Ask<wire::Decision>(peer, Rig::SocketRequest(Type::kAccept), {child});
  };
  SECTION("a peer that meets it") {
    CHECK(listen(kAlice).second.verdict == Verdict::kLatched);
    const wire::Decision child = accept();
    CHECK(child.verdict == Verdict::kLatched);
    CHECK(rig.engine->database().Find(child.latch)->latch.rule == "request");
  }
  SECTION("one that does not") {
    CHECK(listen(kCarol).second.verdict == Verdict::kLatched);
    CHECK(accept().error == EKEYREJECTED);
  }
  SECTION("two requests on one port: whose child it is, nobody can say") {
    CHECK(listen(kAlice).second.verdict == Verdict::kLatched);
    const int second = listen(kCarol).first;
    CHECK(accept().reason == Reason::kUnsupported);
    rig.kernel.sockets.at(second).live = false;  // closed: found out when it matters
    CHECK(accept().verdict == Verdict::kLatched);
  }
  SECTION("only one that protects") {
    CHECK(listen("[[rule]]\naction = \"protect-or-bypass\"\n").second.reason ==
          Reason::kUnsupported);
    CHECK(listen("[[rule]]\naction = \"bypass\"\n").second.reason == Reason::kUnsupported);
  }
}

TEST_CASE(
    "A request of a UDP socket holds for all that it sends to, whoever asks and whoever answers") {
  Rig rig;
  Peer peer = rig.Attached(kNothing);
  const int socket = rig.kernel.NewUdp();
  const auto ask = [&](Peer& whose, uint16_t port) {
    wire::SocketRequest request = Rig::SocketRequest(Type::kPeer, "10.9.0.2");
    request.remote.port = port;
    return *rig.Ask<wire::Decision>(whose, request, {socket});
  };
  REQUIRE(Wish(rig, peer, socket, kAlice)->verdict == Verdict::kBypass);
  CHECK(ask(peer, 53).verdict == Verdict::kLatched);
  CHECK(ask(peer, 54).verdict == Verdict::kLatched);
  Peer other = rig.Attached(kNothing);  // it was handed on
  CHECK(ask(other, 55).verdict == Verdict::kLatched);
  CHECK(ask(other, 56).verdict == Verdict::kLatched);
  rig.Start();
  Peer again = rig.Attached(kNothing);
  CHECK(ask(again, 57).verdict == Verdict::kLatched);
}

TEST_CASE("Requests outlive the broker, those of latches too") {
  Rig rig;
  Peer peer = rig.Attached(kNothing);
  const int waits = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, waits, kCarol)->verdict == Verdict::kBypass);
  const int socket = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, socket, kAlice)->verdict == Verdict::kBypass);
  const uint64_t id = rig.Latch(peer, socket);
  CHECK(rig.Written().wishes.size() == 2);
  CHECK(rig.Written().held.at(id) == kAlice);

  rig.Start();
  const Entry* entry = rig.engine->database().Find(id);
  REQUIRE(entry != nullptr);
  REQUIRE(entry->policy->floor != nullptr);
  REQUIRE(entry->rule != nullptr);
  CHECK(entry->rule->peer.ids == std::vector<std::string>{"alice"});
  CHECK(rig.Written().wishes.size() == 2);
  CHECK(rig.Written().held.at(id) == kAlice);
  Peer again = rig.Attached(kNothing);
  CHECK(Connect(rig, again, waits)->error == EKEYREJECTED);
  CHECK(Wish(rig, again, waits, kAlice)->error == EALREADY);
}

TEST_CASE("A request that the journal lost is not taken for none") {
  Rig rig;
  Peer peer = rig.Attached(kNothing);
  const int socket = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, socket, kCarol)->verdict == Verdict::kBypass);
  const std::string path = rig.directory + "/journal";
  std::string text(1 << 20, '\0');
  UniqueFd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  text.resize(static_cast<size_t>(pread(file.get(), text.data(), text.size(), 0)));
  const size_t at = text.find("\"kind\":\"wish\"");
  REQUIRE(at != std::string::npos);
  REQUIRE(pwrite(file.get(), "#", 1, static_cast<off_t>(at)) == 1);

  rig.Start();
  Peer again = rig.Attached(kNothing);
  const std::optional<wire::Decision> refused = Connect(rig, again, socket);
  REQUIRE(refused);
  CHECK(refused->verdict == Verdict::kRefused);
  CHECK(refused->reason == Reason::kSuspectGap);
  CHECK(Connect(rig, again, rig.kernel.NewSocket())->verdict == Verdict::kBypass);
}

TEST_CASE("A request goes with its socket: who uses it is held to his own policy as well") {
  Rig rig;
  Peer peer = rig.Attached(kNothing);
  const int socket = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, socket, kAlice)->verdict == Verdict::kBypass);
  Peer other = rig.Attached(std::string(kNothing) + "[default]\naction = \"discard\"\n");
  CHECK(Connect(rig, other, socket)->reason == Reason::kPolicyDiscard);
  const int second = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, second, kCarol)->verdict == Verdict::kBypass);
  rig.journal->EndSession(rig.sessions->all().begin()->first);
  rig.Start();
  Peer again = rig.Attached(kNothing);
  CHECK(Connect(rig, again, second)->error == EKEYREJECTED);
}

TEST_CASE("Pages say that there are requests, those of other sessions too") {
  Rig rig;
  Peer first = rig.Attached(kNothing);
  Peer peer = rig.Attached(kNothing);
  const auto flagged = [&rig] {
    size_t count = 0;
    for (auto& [id, session] : rig.sessions->all()) {
      count += (session.page.page().flags & wire::kPageRequests) != 0 ? 1 : 0;
    }
    return count;
  };
  CHECK(flagged() == 0);
  REQUIRE(Wish(rig, peer, rig.kernel.NewSocket(), kAlice)->verdict == Verdict::kBypass);
  CHECK(flagged() == 2);
  rig.Attached(kNothing);
  CHECK(flagged() == 3);
  rig.Start();
  CHECK(flagged() == 3);
}

TEST_CASE("Sockets that are gone take their requests with them") {
  Rig rig;
  Peer peer = rig.Attached(kNothing);
  const int socket = rig.kernel.NewSocket();
  REQUIRE(Wish(rig, peer, socket, kAlice)->verdict == Verdict::kBypass);
  rig.kernel.sockets.at(socket).held = false;
  for (int i = 0; i < 3; ++i) {
    rig.kernel.now += 60'000;
    rig.server->Tick();
  }
  CHECK(rig.Written().wishes.empty());
}

}  // namespace
}  // namespace latchkey::broker
