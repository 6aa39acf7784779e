#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {
namespace {

using Kind = FenceDecision::Kind;
using wire::Type;

constexpr uint32_t kFenced = wire::kOpenLauncher | wire::kOpenFence;
constexpr char kToOthers[] =
    "latchkey = 1\napplication = \"app\"\n"
    "[[rule]]\nremote = [\"10.9.0.0/24\"]\naction = \"protect\"\n";

struct Fences : Rig {
  std::optional<wire::Opened> Launch(Peer& peer, uint32_t flags = kFenced,
                                     const std::string& policy = kProtectAll) {
    const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
    const UniqueFd file = FileWith(policy);
    return Ask<wire::Opened>(peer, OpenRequest(flags), {file.get(), self.get()});
  }
  // A process of a fenced session.
  Peer Fenced(const std::string& policy = kProtectAll) {
    Peer control = Connect();
    const auto opened = Launch(control, kFenced, policy);
    REQUIRE(opened);
    REQUIRE(opened->fenced == 1);
    Peer peer = Connect();
    REQUIRE(Ask<wire::Attached>(peer, AttachRequest(*opened)));
    Hang(control);
    return peer;
  }
  wire::Verdict AskAbout(Peer& peer, Type type, int fd, const std::string& remote = {}) {
    const auto decision = Ask<wire::Decision>(peer, SocketRequest(type, remote), {fd});
    REQUIRE(decision);
    return decision->verdict;
  }
  wire::FenceRecord State(uint64_t after = 0) {
    Peer peer = Connect();
    const auto record = Ask<wire::FenceRecord>(peer, Query(Type::kFence, after));
    REQUIRE(record);
    return *record;
  }
};

TEST_CASE_METHOD(Fences, "a launcher gets a fence around itself, with its session's rules") {
  Peer control = Connect();
  const auto opened = Launch(control);
  REQUIRE(opened);
  CHECK(opened->reason == Reason::kNone);
  CHECK(opened->fenced == 1);
  REQUIRE(fence.standing.size() == 1);
  CHECK(fence.standing.begin()->second == getpid());
  const auto& rules = fence.rules.at(fence.standing.begin()->first);
  CHECK(rules.count > 0);
  CHECK(rules.incoming.datagrams);
  CHECK(rules.incoming.connections);
  const wire::FenceRecord record = State();
  CHECK(record.id == 1);
  CHECK(record.state == wire::FenceState::kStands);
  CHECK(record.launched == 1);
  CHECK(record.unlatched == 0);
  CHECK(std::string(record.program) == "/usr/bin/app");
  CHECK(State(1).id == 0);
}

TEST_CASE_METHOD(Fences, "who asks for none gets none, and that is seen") {
  Peer control = Connect();
  const auto opened = Launch(control, wire::kOpenLauncher);
  REQUIRE(opened);
  CHECK(opened->fenced == 0);
  CHECK(fence.standing.empty());
  CHECK(State().state == wire::FenceState::kUnasked);
  CHECK(State().launched == 1);
  Peer by_hand = Connect();
  REQUIRE(Open(by_hand));
  CHECK(State(1).launched == 0);
}

TEST_CASE_METHOD(Fences, "where there can be no fence the launcher is told why") {
  fence.lacking = "no cgroups";
  Peer control = Connect();
  auto opened = Launch(control);
  REQUIRE(opened);
  CHECK(opened->reason == Reason::kNone);
  CHECK(opened->fenced == 0);
  CHECK(std::string(opened->text) == "no cgroups");
  CHECK(State().state == wire::FenceState::kLacking);
  CHECK(std::string(State().why) == "no cgroups");
  CHECK(Logged("not fenced: /usr/bin/app: no cgroups"));

  fence.lacking.clear();
  fence.refuses = true;
  Peer other = Connect();
  opened = Launch(other);
  REQUIRE(opened);
  CHECK(opened->fenced == 0);
  CHECK(std::string(opened->text).find("no") != std::string::npos);
  CHECK(fence.rules.empty());
}

TEST_CASE_METHOD(Fences,
                 "a program that no shim is loaded into runs behind the fence or not at all") {
  Peer control = Connect();
  const auto opened = Launch(control, kFenced | wire::kOpenUnlatched);
  REQUIRE(opened);
  CHECK(opened->reason == Reason::kNone);
  CHECK(State().unlatched == 1);
  // Nobody waits for its shim.
  Hang(control);
  kernel.now += 60'000;
  server->Tick();
  CHECK_FALSE(Logged("shim-not-loaded"));

  fence.lacking = "no cgroups";
  Peer other = Connect();
  const auto refused = Launch(other, kFenced | wire::kOpenUnlatched);
  REQUIRE(refused);
  CHECK(refused->reason == Reason::kUnsupported);
  CHECK(std::string(refused->text) == "no cgroups");
  CHECK(server->session_count() == 1);
  Hang(other);
}

TEST_CASE_METHOD(Fences, "flags that make no sense end the connection") {
  const uint32_t flags =
      GENERATE(as<uint32_t>{}, wire::kOpenFence, wire::kOpenLauncher | wire::kOpenUnlatched);
  Peer control = Connect();
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  const UniqueFd file = FileWith(kProtectAll);
  std::vector<int> files{file.get()};
  if ((flags & wire::kOpenLauncher) != 0) files.push_back(self.get());
  CHECK_FALSE(Ask<wire::Opened>(control, OpenRequest(flags), files));
  CHECK(control.Ended());
}

TEST_CASE_METHOD(Fences,
                 "a granted connect is for its destination, a refused one changes nothing") {
  Peer peer = Fenced();
  const UniqueFd socket(kernel.NewSocket());
  CHECK(AskAbout(peer, Type::kConnect, socket.get(), "10.9.0.2") == wire::Verdict::kLatched);
  REQUIRE(fence.Of(socket.get()) != nullptr);
  CHECK(*fence.Of(socket.get()) == FenceDecision{Kind::kFlow, At("10.9.0.2", 443)});
  const UniqueFd other(kernel.NewSocket());
  CHECK(AskAbout(peer, Type::kConnect, other.get(), "10.9.0.9") == wire::Verdict::kRefused);
  CHECK(fence.Of(other.get()) == nullptr);
  // Not latched, but decided all the same.
  Peer lax = Fenced(kToOthers);
  const UniqueFd clear(kernel.NewSocket());
  CHECK(AskAbout(lax, Type::kConnect, clear.get(), "10.8.0.1") == wire::Verdict::kBypass);
  CHECK(*fence.Of(clear.get()) == FenceDecision{Kind::kFlow, At("10.8.0.1", 443)});
}

TEST_CASE_METHOD(Fences, "what stays within the host is decided so, with the device") {
  Peer peer = Fenced();
  const UniqueFd socket(kernel.NewSocket());
  CHECK(AskAbout(peer, Type::kConnect, socket.get(), "127.0.0.1") == wire::Verdict::kLocal);
  REQUIRE(fence.Of(socket.get()) != nullptr);
  CHECK(*fence.Of(socket.get()) == FenceDecision{Kind::kHost, At("127.0.0.1", 443), 1});
  // So is what a listener accepts from there, whoever its other clients are.
  Peer lax = Fenced(kToOthers);
  const UniqueFd child(kernel.NewSocket());
  kernel.sockets.at(child.get()).facts.local = At("127.0.0.1", 80);
  kernel.sockets.at(child.get()).facts.remote = At("127.0.0.1", 50'000);
  CHECK(AskAbout(lax, Type::kAccept, child.get()) == wire::Verdict::kLocal);
  REQUIRE(fence.Of(child.get()) != nullptr);
  CHECK(*fence.Of(child.get()) == FenceDecision{Kind::kHost, At("127.0.0.1", 50'000), 1});
}

TEST_CASE_METHOD(Fences, "a connect that waits is decided when it is answered") {
  keys.negotiates = true;
  keys.Name(9, "carol");
  Peer peer = Fenced();
  const UniqueFd socket(kernel.NewSocket());
  CHECK(AskAbout(peer, Type::kConnect, socket.get(), "10.9.0.5") == wire::Verdict::kWait);
  CHECK(fence.Of(socket.get()) == nullptr);
  kernel.AddPair(9, "10.9.0.5");
  engine->OnEvents({KernelEvent{KernelEvent::Kind::kOverrun, {}}});
  REQUIRE(fence.Of(socket.get()) != nullptr);
  CHECK(*fence.Of(socket.get()) == FenceDecision{Kind::kFlow, At("10.9.0.5", 443)});
}

TEST_CASE_METHOD(Fences, "a listener takes whoever comes, and a release undoes it") {
  Peer peer = Fenced();
  const UniqueFd socket(kernel.NewSocket());
  CHECK(AskAbout(peer, Type::kListen, socket.get()) == wire::Verdict::kLatched);
  REQUIRE(fence.Of(socket.get()) != nullptr);
  CHECK(fence.Of(socket.get())->kind == Kind::kPassive);
  AskAbout(peer, Type::kRelease, socket.get());
  CHECK(fence.Of(socket.get()) == nullptr);
}

TEST_CASE_METHOD(Fences, "a UDP socket is held, or goes by the rules") {
  Peer peer = Fenced();
  const UniqueFd socket(kernel.NewUdp());
  CHECK(AskAbout(peer, Type::kHold, socket.get()) == wire::Verdict::kLatched);
  REQUIRE(fence.Of(socket.get()) != nullptr);
  CHECK(fence.Of(socket.get())->kind == Kind::kHeld);
  Peer free = Fenced("latchkey = 1\napplication = \"app\"\n");
  const UniqueFd clear(kernel.NewUdp());
  CHECK(AskAbout(free, Type::kHold, clear.get()) == wire::Verdict::kBypass);
  REQUIRE(fence.Of(clear.get()) != nullptr);
  CHECK(fence.Of(clear.get())->kind == Kind::kClear);
  CHECK(AskAbout(free, Type::kPeer, clear.get(), "10.9.0.2") == wire::Verdict::kBypass);
  CHECK(*fence.Of(clear.get()) == FenceDecision{Kind::kClear, At("10.9.0.2", 443)});
}

TEST_CASE_METHOD(Fences, "a release leaves a held UDP socket held, and a connected one as it was") {
  Peer peer = Fenced();
  const UniqueFd socket(kernel.NewUdp());
  REQUIRE(AskAbout(peer, Type::kHold, socket.get()) == wire::Verdict::kLatched);
  // connect(AF_UNSPEC) on a socket that was not connected.
  AskAbout(peer, Type::kRelease, socket.get());
  REQUIRE(fence.Of(socket.get()) != nullptr);
  CHECK(fence.Of(socket.get())->kind == Kind::kHeld);
  // Connected anew by another thread before the request came.
  const UniqueFd raced(kernel.NewUdp());
  REQUIRE(AskAbout(peer, Type::kConnect, raced.get(), "10.9.0.2") == wire::Verdict::kLatched);
  kernel.sockets.at(raced.get()).facts.remote = At("10.9.0.2", 443);
  const FenceDecision before = *fence.Of(raced.get());
  CHECK(before.kind == Kind::kLatched);
  AskAbout(peer, Type::kRelease, raced.get());
  REQUIRE(fence.Of(raced.get()) != nullptr);
  CHECK(*fence.Of(raced.get()) == before);
  // Past the shim, once it was released: no latch holds it any more.
  const UniqueFd past(kernel.NewUdp());
  REQUIRE(fence.Decide(past.get(), {Kind::kHeld, {}}));
  kernel.sockets.at(past.get()).facts.remote = At("10.9.0.2", 443);
  AskAbout(peer, Type::kRelease, past.get());
  CHECK(fence.Of(past.get()) == nullptr);
}

TEST_CASE_METHOD(Fences,
                 "a connected UDP socket goes in clear where its latch does, or may come to") {
  Peer peer = Fenced();
  const UniqueFd settled(kernel.NewUdp());
  REQUIRE(AskAbout(peer, Type::kConnect, settled.get(), "10.9.0.2") == wire::Verdict::kLatched);
  CHECK(*fence.Of(settled.get()) == FenceDecision{Kind::kLatched, {}});
  Peer optional =
      Fenced("latchkey = 1\napplication = \"app\"\n[[rule]]\naction = \"protect-or-bypass\"\n");
  const UniqueFd clear(kernel.NewUdp());
  REQUIRE(AskAbout(optional, Type::kConnect, clear.get(), "10.9.0.7") == wire::Verdict::kLatched);
  CHECK(*fence.Of(clear.get()) == FenceDecision{Kind::kLatched, At("10.9.0.7", 443)});
  keys.negotiates = true;
  keys.Name(9, "carol");
  const UniqueFd waits(kernel.NewUdp());
  wire::SocketRequest request = SocketRequest(Type::kConnect, "10.9.0.5");
  request.flags = wire::kRequestNonblocking;
  const auto decision = Ask<wire::Decision>(peer, request, {waits.get()});
  REQUIRE(decision);
  CHECK(decision->verdict == wire::Verdict::kWait);
  kernel.now += 200;
  engine->OnTime();
  REQUIRE(fence.Of(waits.get()) != nullptr);
  CHECK(*fence.Of(waits.get()) == FenceDecision{Kind::kFlow, At("10.9.0.5", 443)});
}

TEST_CASE_METHOD(Fences, "what a fence stopped is on record") {
  Peer control = Connect();
  REQUIRE(Launch(control));
  const uint64_t id = fence.standing.begin()->first;
  fence.stops = {{id, FenceStop::Kind::kConnect, 3, 6, At("10.9.0.3", 80)},
                 {id, FenceStop::Kind::kSocket, 1, 132, {}},
                 {id + 1, FenceStop::Kind::kConnect, 1, 6, At("10.9.0.3", 80)}};
  Peer asks = Connect();
  const auto newest = Ask<wire::IncidentRecord>(asks, Query(Type::kWhy, 0));
  REQUIRE(newest);
  CHECK(newest->reason == Reason::kFenced);
  CHECK(std::string(newest->detail) == "socket refused, IP protocol 132");
  const auto before = Ask<wire::IncidentRecord>(asks, Query(Type::kWhy, newest->id));
  REQUIRE(before);
  CHECK(FromWire(before->remote) == At("10.9.0.3", 80));
  CHECK(std::string(before->detail) == "connect refused, 3 times since last told");
  CHECK(std::string(before->program) == "/usr/bin/app");
  CHECK(Ask<wire::IncidentRecord>(asks, Query(Type::kWhy, before->id))->id == 0);
  CHECK(Logged("fenced"));
}

TEST_CASE_METHOD(Fences, "a session lives as long as something is in its fence") {
  options.session_idle_ms = 1'000;
  Start();
  Peer control = Connect();
  REQUIRE(Launch(control, kFenced | wire::kOpenUnlatched));
  Hang(control);
  kernel.now += 60'000;
  server->Tick();
  CHECK(server->session_count() == 1);
  server->EndIdleSessions();
  CHECK(server->session_count() == 1);
  fence.empty.insert(fence.standing.begin()->first);
  server->Tick();
  CHECK(fence.standing.empty());
  kernel.now += 60'000;
  server->Tick();
  CHECK(server->session_count() == 0);
}

TEST_CASE_METHOD(Fences, "without room sessions whose fence is over make way, others never") {
  limits = {4, 4};
  Start();
  const auto ids = [&] {
    std::vector<uint64_t> all;
    for (const auto& [id, session] : sessions->all()) all.push_back(id);
    return all;
  };
  using Ids = std::vector<uint64_t>;
  Peer latched = Fenced();
  Latch(latched, kernel.NewSocket());
  Hang(latched);
  Peer first = Fenced();
  Peer second = Fenced();
  Peer unfenced = Attached();
  Hang(unfenced);
  kernel.now += 60'000;
  Peer refused = Connect();
  CHECK(Launch(refused)->reason == Reason::kLimit);  // somebody is behind each fence
  kernel.now += 10;
  Hang(second);
  kernel.now += 10;
  Hang(first);
  for (const auto& [id, pid] : fence.standing) fence.empty.insert(id);
  Peer third = Fenced();
  CHECK(ids() == Ids{1, 2, 4, 5});
  CHECK(Written().sessions.size() == 4);
  Peer fourth = Fenced();
  CHECK(ids() == Ids{1, 4, 5, 6});
  Peer fifth = Connect();
  CHECK(Launch(fifth)->reason == Reason::kLimit);
}

TEST_CASE_METHOD(Fences, "the next broker finds the fences, and takes away what is no session's") {
  Peer control = Connect();
  REQUIRE(Launch(control));
  const uint64_t id = fence.standing.begin()->first;
  fence.standing[77] = 1;
  fence.rules.clear();
  fence.told = 0;
  Start();
  CHECK(State().state == wire::FenceState::kStands);
  CHECK(fence.rules.contains(id));
  CHECK(fence.told == 1);  // and not before the SPD was known
  fence.empty.insert(77);
  server->Tick();
  CHECK(fence.standing.size() == 1);
  CHECK(fence.standing.contains(id));
}

TEST_CASE_METHOD(Fences, "who is not fenced, and why, outlives the broker") {
  fence.lacking = "no cgroups";
  Peer lacks = Connect();
  REQUIRE(Launch(lacks));
  fence.lacking.clear();
  Peer alone = Connect();
  REQUIRE(Launch(alone, kFenced | wire::kOpenUnlatched));
  Start();
  CHECK(State().state == wire::FenceState::kLacking);
  CHECK(std::string(State().why) == "no cgroups");
  CHECK(State().launched == 1);
  CHECK(State(1).state == wire::FenceState::kStands);
  CHECK(State(1).unlatched == 1);
  // A fence that cannot be found again is none for the next broker: it decides nothing behind it.
  fence.standing.clear();
  Start();
  CHECK(State(1).state == wire::FenceState::kLacking);
  CHECK_FALSE(std::string(State(1).why).empty());
}

TEST_CASE_METHOD(Fences, "a fence that nobody is behind any more stays over for the next broker") {
  Peer peer = Fenced();
  Latch(peer, kernel.NewSocket());  // for which the session stays
  Hang(peer);
  fence.empty.insert(fence.standing.begin()->first);
  server->Tick();
  REQUIRE(State().state == wire::FenceState::kOver);
  Start();
  CHECK(State().state == wire::FenceState::kOver);
}

TEST_CASE_METHOD(Fences, "a change of the system's rules reaches the fence") {
  Peer peer = Fenced(kToOthers);
  const uint64_t id = fence.standing.begin()->first;
  fence.rules.clear();
  server->OnSystem();
  CHECK(fence.rules.contains(id));
}

}  // namespace
}  // namespace latchkey::broker
