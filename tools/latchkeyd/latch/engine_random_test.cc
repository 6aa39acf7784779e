// Random sequences of requests and events, with what must hold after every single step.

#include <catch2/catch.hpp>
#include <random>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

using Kind = SocketPolicy::Kind;

const char* const kPeers[] = {"10.9.0.2", "10.9.0.3", "fd00::2"};
const char* const kNames[] = {"bob", "carol"};

class Walk {
 public:
  explicit Walk(uint32_t seed) : random_(seed) {}

  void Step() {
    switch (random_() % 12) {
      case 0:
      case 1:
        return AddPair();
      case 2:
        return RemovePair();
      case 3:
      case 4:
        return Connect();
      case 5:
        return Listen();
      case 6:
      case 7:
        return Accept();
      case 8:
        return CloseOne();
      case 9:
        broker_.kernel.now += static_cast<int64_t>(random_() % 8'000);
        return broker_.engine->Tick(random_() % 2 == 0);
      case 10:
        broker_.kernel.guards.clear();  // somebody flushes the SPD
        return broker_.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
      case 11:
        return Restart();
    }
  }

  void Check() {
    std::map<uint64_t, int> fd_of;
    for (const auto& [fd, socket] : broker_.kernel.sockets) fd_of[socket.facts.cookie] = fd;
    CHECK(broker_.kernel.borrowed == 0);
    for (const auto& [id, entry] : broker_.engine->database().entries()) {
      const FakeKernel::Socket& socket = broker_.kernel.sockets.at(fd_of.at(entry.hint.cookie));
      const State state = entry.latch.state;
      INFO("latch " << id << " " << StateName(state));
      REQUIRE(socket.policy);
      if (state == State::kBroken) {
        // Blocked, unless no process holds the socket any more.
        CHECK((socket.policy->kind == Kind::kBlock || !socket.held));
        CHECK(broker_.observer.told[{id, State::kBroken}] >= 1);
      }
      if (state != State::kEstablished) continue;
      CHECK(socket.policy->kind == Kind::kProtect);
      CHECK(socket.policy->reqid == entry.latch.reqid);
      CHECK((socket.facts.mark & Options{}.guard_mark) != 0);
      // No SA that can carry its packets may belong to anybody else.
      for (const Sa& sa : broker_.kernel.sad) {
        const Flow& flow = entry.latch.flow;
        if (!sa.Carries(flow.protocol, flow.local, flow.remote) &&
            !sa.Carries(flow.protocol, flow.remote, flow.local)) {
          continue;
        }
        const KnownSa known{sa, false, broker_.keys.Identify(sa, false), 0, {}};
        CHECK_FALSE(Conflicts(known, entry.latch));
      }
    }
    // What the journal knows and what the kernel holds are the same.
    CHECK(broker_.observer.journal.size() == broker_.kernel.guards.size());
    for (const Guard& guard : broker_.kernel.guards)
      CHECK(broker_.observer.journal.contains(guard));
  }

  void End() {
    for (auto& [fd, socket] : broker_.kernel.sockets) socket.live = socket.held = false;
    broker_.kernel.now += 60'000;
    broker_.engine->Tick(true);
    broker_.kernel.now += 31'000;  // what only broke now is shown for half a minute
    broker_.engine->Tick(true);
    CHECK(broker_.engine->database().entries().empty());
    broker_.kernel.now += 70'000;
    broker_.engine->Tick();
    CHECK(broker_.kernel.guards.size() == 2);
    broker_.engine->Stop();
    CHECK(broker_.kernel.guards.empty());
  }

 private:
  const char* Peer() { return kPeers[random_() % std::size(kPeers)]; }

  void AddPair() {
    pairs_.push_back(broker_.Keyed(next_reqid_++, kNames[random_() % std::size(kNames)], Peer(),
                                   random_() % 4 == 0 ? 128 : 256));
  }
  void RemovePair() {
    if (pairs_.empty()) return;
    const size_t which = random_() % pairs_.size();
    broker_.Unkeyed(pairs_[which]);
    pairs_.erase(pairs_.begin() + static_cast<long>(which));
  }
  void Connect() {
    const bool v6 = random_() % 2 == 0;
    const int fd =
        broker_.kernel.AddSocket({Address::AnyOf(v6 ? Family::kV6 : Family::kV4), 0}, {}, v6);
    broker_.Connect(fd, Peer(), static_cast<uint16_t>(400 + random_() % 3));
  }
  void Listen() {
    if (listeners_.size() > 3) return;
    const int fd = broker_.Listener(random_() % 2 == 0 ? "::" : "0.0.0.0",
                                    static_cast<uint16_t>(8000 + listeners_.size()));
    if (broker_.Listen(fd).verdict == wire::Verdict::kLatched) listeners_.push_back(fd);
  }
  void Accept() {
    if (listeners_.empty()) return;
    const int listener = listeners_[random_() % listeners_.size()];
    const FakeKernel::Socket& parent = broker_.kernel.sockets.at(listener);
    const char* peer = parent.facts.v6_socket ? Peer() : kPeers[random_() % 2];
    broker_.Accept(broker_.Child(listener, peer, static_cast<uint16_t>(1 + random_() % 60'000)));
  }
  void CloseOne() {
    auto it = broker_.kernel.sockets.begin();
    if (it == broker_.kernel.sockets.end()) return;
    std::advance(it, random_() % broker_.kernel.sockets.size());
    it->second.live = it->second.held = false;
    std::erase(listeners_, it->first);
  }
  void Restart() {
    std::vector<Entry> journal;
    for (const auto& [id, entry] : broker_.engine->database().entries()) journal.push_back(entry);
    std::vector<Guard> guards;
    for (const auto& [guard, count] : broker_.observer.journal) guards.push_back(guard);
    broker_.Restart(guards, journal);
    REQUIRE(broker_.started);
  }

  std::mt19937 random_;
  Broker broker_;
  std::vector<std::vector<Sa>> pairs_;
  std::vector<int> listeners_;
  uint32_t next_reqid_ = 1;
};

TEST_CASE("no sequence of events leaves a latch with a peer or protection that is not its own") {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    INFO("seed " << seed);
    Walk walk(seed);
    for (int step = 0; step < 60; ++step) {
      INFO("step " << step);
      walk.Step();
      walk.Check();
    }
    walk.End();
  }
}

}  // namespace
}  // namespace latchkey::broker
