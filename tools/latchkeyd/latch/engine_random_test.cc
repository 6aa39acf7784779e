// Random sequences of requests and events, with what must hold after every single step.

#include <catch2/catch.hpp>
#include <random>
#include <set>
#include <tuple>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// Of entries that keep packets back; no SA has such a reqid.
constexpr uint32_t kPlaceholders = 0xffff'fff0;

using Kind = SocketPolicy::Kind;
using wire::Verdict;

const char* const kPeers[] = {"10.9.0.2", "10.9.0.3", "fd00::2"};
const char* const kNames[] = {"bob", "carol"};

class Walk {
 public:
  explicit Walk(uint32_t seed) : random_(seed) {
    policy::Rule rule = ProtectRule();
    rule.on_break = Toss() ? policy::OnBreak::kSuspend : policy::OnBreak::kReset;
    rule.protection.pin = Toss() ? Pin::kSpi : Pin::kAuto;
    rule.action = Toss() ? policy::Action::kProtect : policy::Action::kProtectOrBypass;
    broker_.client.policy = MakePolicy({rule});
    broker_.keys.negotiates = Toss();
  }

  void Step() {
    switch (random_() % 20) {
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
        broker_.engine->OnTime();
        return broker_.engine->Tick(Toss());
      case 10:
        broker_.kernel.guards.clear();  // somebody flushes the SPD
        return broker_.engine->OnEvents({{KernelEvent::Kind::kSpdChanged, {}}});
      case 11:
        return Restart();
      case 12:
        return Rekey();
      case 13:
        return Negotiated();
      case 14:
        return Ask();
      case 15:
        return Name();
      case 16:
        return LoseKeys();
      case 17:
        return Die();
      case 18:
        return Administer();
      case 19:
        return Cancel();
    }
  }

  void Check() {
    std::map<uint64_t, int> fd_of;
    for (const auto& [fd, socket] : broker_.kernel.sockets) fd_of[socket.facts.cookie] = fd;
    CHECK(broker_.kernel.borrowed == 0);
    bool larval = false;
    bool unnamed = false;
    for (const auto& [id, entry] : broker_.engine->database().entries()) {
      const FakeKernel::Socket& socket = broker_.kernel.sockets.at(fd_of.at(entry.hint.cookie));
      const State state = entry.latch.state;
      INFO("latch " << id << " " << StateName(state));
      ++met[{state, entry.latch.suspends, entry.latch.pin == Pin::kSpi}];
      REQUIRE(socket.policy);
      if (state == State::kBroken) {
        // Blocked, unless no process holds the socket any more.
        CHECK((socket.policy->kind == Kind::kBlock || !socket.held));
        CHECK(broker_.observer.told[{id, State::kBroken}] >= 1);
        CHECK((entry.latch.suspends || socket.aborted || !socket.held));
        CHECK(entry.guards.empty());
      }
      if (state == State::kLarval) {
        larval = true;
        CHECK(socket.policy->kind == Kind::kAwaitIn);
        CHECK((socket.facts.mark & Options{}.guard_mark) != 0);
        CHECK(entry.guards.size() == 1);
        for (const Sa& sa : broker_.kernel.sad) CHECK(sa.reqid != socket.policy->reqid);
      }
      for (const Guard& guard : entry.sa_guards) {
        if (!guard.out || guard.reqid < kPlaceholders) continue;
        unnamed = true;
        CHECK(AwaitsName(guard.selector.destination.base));
      }
      if (state == State::kEstablished && entry.latch.clear) {
        CHECK(socket.policy->kind == Kind::kAllow);
      }
      if (state == State::kEstablished && !entry.latch.clear) CheckPinned(entry, socket);
      // What was latched stays as it was.
      if (state == State::kLarval || state == State::kListener) continue;
      const auto [born, fresh] =
          born_.emplace(entry.hint.cookie, std::pair(entry.latch.identity, entry.latch.protection));
      if (fresh || state == State::kBroken) continue;
      CHECK(born->second == std::pair(entry.latch.identity, entry.latch.protection));
    }
    CHECK(broker_.kernel.holding == (larval || unnamed));
    // What the journal knows and what the kernel holds are the same.
    CHECK(broker_.observer.journal.size() == broker_.kernel.guards.size());
    for (const Guard& guard : broker_.kernel.guards)
      CHECK(broker_.observer.journal.contains(guard));
    // Who waits has no answer yet; whoever has one does not wait.
    for (const uint64_t ticket : waiting_) {
      if (broker_.AnswerTo(ticket)) CHECK(broker_.AnswerTo(ticket)->verdict != Verdict::kWait);
    }
    std::erase_if(waiting_,
                  [this](uint64_t ticket) { return broker_.AnswerTo(ticket).has_value(); });
    if (waiting_.empty() && !larval) CHECK_FALSE(broker_.engine->NextDue());
    CheckSettled();
  }

  void End() {
    for (auto& [fd, socket] : broker_.kernel.sockets) socket.live = socket.held = false;
    for (int i = 0; i < 2; ++i) {
      broker_.kernel.now += 60'000;
      broker_.engine->OnTime();
      broker_.engine->Tick(true);
    }
    Check();
    CHECK(waiting_.empty());
    broker_.kernel.now += 31'000;  // what only broke now is shown for half a minute
    broker_.engine->Tick(true);
    CHECK(broker_.engine->database().entries().empty());
    broker_.kernel.now += 70'000;
    broker_.engine->Tick();
    CHECK(broker_.kernel.guards.size() == 2);
    CHECK_FALSE(broker_.kernel.holding);
    broker_.engine->Stop();
    CHECK(broker_.kernel.guards.empty());
  }

  // How often latches of each kind were looked at: state, suspends, pinned by SPI.
  std::map<std::tuple<State, bool, bool>, int> met;

 private:
  bool Toss() { return random_() % 2 == 0; }
  const char* Peer() { return kPeers[random_() % std::size(kPeers)]; }

  bool AwaitsName(const Address& remote) const {
    return std::ranges::any_of(broker_.engine->sas().all(), [&remote](const auto& each) {
      return each.second.remote() == remote && each.second.who.pending();
    });
  }

  // What events made the engine look at is all that there was to look at: looking at everything
  // changes nothing.
  void CheckSettled() {
    if (random_() % 4 != 0) return;
    const auto entries = [this] {
      std::multiset<Guard> all;
      for (Guard guard : broker_.kernel.guards) {
        // Where a child's entry only lingers, its listener's own may come later.
        guard.reqid = 0;
        guard.action = Guard::Action::kBlock;
        all.insert(guard);
      }
      return all;
    };
    broker_.engine->Tick();
    const std::multiset<Guard> before = entries();
    broker_.observer.log.clear();
    broker_.KeysChanged();
    // But who waits at a listener that is gone.
    if (waiting_.empty()) CHECK(broker_.observer.log == std::vector<std::string>{});
    CHECK(before == entries());
  }

  void CheckPinned(const Entry& entry, const FakeKernel::Socket& socket) {
    const Latch& latch = entry.latch;
    CHECK(socket.policy->kind == Kind::kProtect);
    CHECK(socket.policy->reqid == latch.reqid);
    CHECK((socket.policy->spi_in != 0) == (latch.pin == Pin::kSpi));
    CHECK((socket.facts.mark & Options{}.guard_mark) != 0);
    // No SA that can carry its packets may belong to anybody else. One of whom nobody speaks is no
    // conflict yet; that its policy lets one in has an end.
    for (const Sa& sa : broker_.kernel.sad) {
      const Flow& flow = latch.flow;
      const bool in = sa.Carries(flow.protocol, flow.remote, flow.local);
      if (!in && !sa.Carries(flow.protocol, flow.local, flow.remote)) continue;
      const KnownSa known{sa, in, broker_.keys.Identify(sa, in), 0, {}};
      CHECK_FALSE(OtherProtection(known, latch));
      if (known.who.pending() || known.who.why == Reason::kKmLost) continue;
      CHECK_FALSE(Conflicts(known, latch));
    }
    if (latch.pin != Pin::kSpi) return;
    CHECK(socket.policy->spi_in == latch.spi_in);
    CHECK(socket.policy->spi_out == latch.spi_out);
  }

  void AddPair() {
    const uint32_t reqid = next_reqid_++;
    owner_[reqid] = kNames[random_() % std::size(kNames)];
    if (random_() % 3 == 0) {
      broker_.keys.by_reqid[reqid] = Identified::Pending();
    } else {
      broker_.keys.Name(reqid, owner_[reqid]);
    }
    const std::vector<Sa> pair =
        broker_.kernel.AddPair(reqid, Peer(), random_() % 4 == 0 ? 128 : 256);
    Hear(pair);
    pairs_.push_back(pair);
  }
  // One by one or together, and in either order.
  void Hear(std::vector<Sa> pair) {
    if (Toss()) std::swap(pair[0], pair[1]);
    if (Toss()) return broker_.Hear(pair);
    broker_.engine->OnEvents(
        {{KernelEvent::Kind::kSaAdded, pair[0]}, {KernelEvent::Kind::kSaAdded, pair[1]}});
  }
  void Rekey() {
    if (pairs_.empty()) return;
    std::vector<Sa>& old = pairs_[random_() % pairs_.size()];
    const std::vector<Sa> fresh = broker_.kernel.AddPair(
        old[0].reqid, old[0].key.destination.ToString(), old[0].protection.key_bits);
    Hear(fresh);
    if (Toss()) broker_.kernel.now += 500;
    if (Toss()) broker_.engine->Tick();
    broker_.Gone(std::exchange(old, fresh));
  }
  void RemovePair() {
    if (pairs_.empty()) return;
    const size_t which = random_() % pairs_.size();
    broker_.Gone(pairs_[which]);
    pairs_.erase(pairs_.begin() + static_cast<long>(which));
  }
  void Connect() {
    const bool v6 = Toss();
    const int fd =
        broker_.kernel.AddSocket({Address::AnyOf(v6 ? Family::kV6 : Family::kV4), 0}, {}, v6);
    const auto port = static_cast<uint16_t>(400 + random_() % 3);
    const Answer answer = broker_.Begin(fd, /*nonblocking=*/Toss(), Peer(), port);
    if (answer.verdict == Verdict::kWait) waiting_.insert(answer.ticket);
  }
  void Listen() {
    if (listeners_.size() > 3) return;
    const int fd = broker_.Listener(Toss() ? "::" : "0.0.0.0", next_port_++);
    if (broker_.Listen(fd).verdict == Verdict::kLatched) listeners_.push_back(fd);
  }
  void Accept() {
    if (listeners_.empty()) return;
    const int listener = listeners_[random_() % listeners_.size()];
    const FakeKernel::Socket& parent = broker_.kernel.sockets.at(listener);
    const char* peer = parent.facts.v6_socket ? Peer() : kPeers[random_() % 2];
    const Answer answer = broker_.Accept(
        broker_.Child(listener, peer, static_cast<uint16_t>(1 + random_() % 60'000)));
    if (answer.verdict == Verdict::kWait) waiting_.insert(answer.ticket);
  }
  void CloseOne() {
    auto it = broker_.kernel.sockets.begin();
    if (it == broker_.kernel.sockets.end()) return;
    std::advance(it, random_() % broker_.kernel.sockets.size());
    it->second.live = it->second.held = false;
    std::erase(listeners_, it->first);
  }
  void Cancel() {
    if (waiting_.empty()) return;
    broker_.engine->Cancel(*waiting_.begin());
    waiting_.erase(waiting_.begin());
  }
  // A negotiation ends; where it made an SA, its event came before.
  void Negotiated() {
    if (broker_.keys.tickets.empty()) return;
    const std::string remote = broker_.keys.tickets.begin()->first.ToString();
    constexpr Reason kReasons[] = {Reason::kNone, Reason::kAuthFailed, Reason::kNoProposal,
                                   Reason::kNoChild};
    broker_.Negotiated(remote, kReasons[random_() % std::size(kReasons)]);
  }
  // The key manager asks anew about some, has an answer for all, or is gone.
  void Ask() {
    for (auto& [reqid, who] : broker_.keys.by_reqid) {
      if (random_() % 4 == 0) who = Identified::Pending();
    }
    broker_.KeysChanged();
  }
  void Name() {
    for (const auto& [reqid, name] : owner_) broker_.keys.Name(reqid, name);
    broker_.KeysChanged();
  }
  void LoseKeys() {
    for (auto& [reqid, who] : broker_.keys.by_reqid) {
      who = Identified::Nobody(Reason::kKmLost);
    }
    broker_.KeysChanged();
  }
  void Die() {
    KeyEvent event;
    event.kind = KeyEvent::Kind::kPeerDead;
    event.peer = Identity{kNames[random_() % std::size(kNames)], "me", "manual"};
    event.remote = Address::Parse(Peer()).value();
    broker_.keys.events.push_back(event);
    broker_.engine->OnKeys();
  }
  void Administer() {
    const auto& entries = broker_.engine->database().entries();
    if (entries.empty()) return;
    auto it = entries.begin();
    std::advance(it, random_() % entries.size());
    if (Toss()) {
      broker_.engine->AdminBreak(it->first);
    } else {
      broker_.engine->AdminResume(it->first);
    }
  }
  void Restart() {
    const bool stopped = random_() % 3 == 0;
    if (stopped) broker_.engine->Stop();
    broker_.kernel.holding = false;  // main() gives back what was set before
    waiting_.clear();
    broker_.observer.answers.clear();
    broker_.Crash();
    REQUIRE(broker_.started);
  }

  std::mt19937 random_;
  Broker broker_;
  std::vector<std::vector<Sa>> pairs_;
  std::map<uint32_t, std::string> owner_;  // by reqid
  std::vector<int> listeners_;
  std::set<uint64_t> waiting_;                                // tickets
  std::map<uint64_t, std::pair<Identity, Protection>> born_;  // by cookie
  uint16_t next_port_ = 8000;
  uint32_t next_reqid_ = 1;
};

TEST_CASE("no sequence of events leaves a latch with a peer or protection that is not its own") {
  std::map<std::tuple<State, bool, bool>, int> met;
  for (uint32_t seed = 0; seed < 600; ++seed) {
    INFO("seed " << seed);
    Walk walk(seed);
    for (int step = 0; step < 60; ++step) {
      INFO("step " << step);
      walk.Step();
      walk.Check();
    }
    walk.End();
    for (const auto& [kind, count] : walk.met) met[kind] += count;
  }
  // It went everywhere.
  for (const bool spi : {false, true}) {
    for (const bool suspends : {false, true}) {
      CHECK(met[{State::kEstablished, suspends, spi}] > 1'000);
      CHECK(met[{State::kBroken, suspends, spi}] > 1'000);
    }
  }
  CHECK(met[{State::kLarval, false, false}] > 300);
  CHECK(met[{State::kListener, false, false}] > 1'000);
}

}  // namespace
}  // namespace latchkey::broker
