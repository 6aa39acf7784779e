// What the engine's tests share: a broker of fakes, and policies made in one line.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_FIXTURE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_FIXTURE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/fake_kernel.h"
#include "tools/latchkeyd/latch/fake_key_manager.h"
#include "tools/latchkeyd/latch/fake_observer.h"

namespace latchkey::broker {

// A rule that protects all TCP and accepts `peers` (none: anybody known).
inline policy::Rule ProtectRule(std::vector<std::string> peers = {}) {
  policy::Rule rule;
  rule.name = "all";
  rule.action = policy::Action::kProtect;
  rule.peer.ids = std::move(peers);
  return rule;
}

inline std::shared_ptr<const policy::Policy> MakePolicy(
    std::vector<policy::Rule> rules, policy::Action otherwise = policy::Action::kSystem) {
  auto policy = std::make_shared<policy::Policy>();
  policy->application = "app";
  policy->rules = std::move(rules);
  policy->otherwise = otherwise;
  return policy;
}

struct Broker {
  FakeKernel kernel;
  FakeKeyManager keys;
  FakeObserver observer;
  Options options;
  std::unique_ptr<Engine> engine;
  Client client;

  explicit Broker(std::shared_ptr<const policy::Policy> policy = MakePolicy({ProtectRule()}),
                  std::vector<Guard> guards = {}, std::vector<Entry> latches = {}) {
    client.session = 1;
    client.policy = std::move(policy);
    client.requester.uid = 1000;
    client.pid = 4321;
    client.program = "/usr/bin/app";
    Restart(Legacy{std::move(guards), std::move(latches)});
  }

  void Restart(std::vector<Guard> guards, std::vector<Entry> latches) {
    Restart(Legacy{std::move(guards), std::move(latches)});
  }
  void Restart(Legacy legacy) {
    engine = std::make_unique<Engine>(kernel, keys, observer, options);
    started = engine->Start(std::move(legacy));
  }

  // As if the broker had been killed: what the journal knows is all that its successor has.
  void Crash() { Restart(Left()); }
  Legacy Left() const {
    Legacy legacy;
    for (const auto& [id, entry] : engine->database().entries()) {
      if (entry.latch.listener == 0) legacy.latches.push_back(entry);
    }
    legacy.last_id = engine->database().last_id();
    for (const auto& [guard, count] : observer.journal) legacy.guards.push_back(guard);
    for (const auto& [key, voucher] : observer.vouchers) legacy.vouchers.push_back(voucher);
    return legacy;
  }

  // Lets the engine hear of an SA that is in the SAD, and of the end of one.
  void Hear(const Sa& sa) const { engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}}); }
  void Hear(const std::vector<Sa>& sas) const {
    for (const Sa& sa : sas) Hear(sa);
  }
  void Gone(const Sa& sa) {
    std::erase_if(kernel.sad, [&sa](const Sa& each) { return each.key == sa.key; });
    engine->OnEvents({{KernelEvent::Kind::kSaDeleted, sa}});
  }
  void Gone(const std::vector<Sa>& sas) {
    for (const Sa& sa : sas) Gone(sa);
  }

  // Lets time pass, as the broker's loop would notice it.
  void Pass(int64_t milliseconds) {
    kernel.now += milliseconds;
    engine->OnTime();
    engine->Tick();
  }

  // The key manager says that something changed.
  void KeysChanged() {
    keys.events.emplace_back();
    engine->OnKeys();
  }
  void Negotiated(const std::string& remote, Reason reason = Reason::kNone) {
    keys.Finish(remote, reason);
    engine->OnKeys();
  }

  // Adds a pair of SAs and lets the engine hear of it.
  std::vector<Sa> Keyed(uint32_t reqid, const std::string& peer, const std::string& address,
                        uint16_t key_bits = 256) {
    keys.Name(reqid, peer);
    const std::vector<Sa> pair = kernel.AddPair(reqid, address, key_bits);
    for (const Sa& sa : pair) engine->OnEvents({{KernelEvent::Kind::kSaAdded, sa}});
    return pair;
  }

  void Unkeyed(const std::vector<Sa>& pair) {
    kernel.RemoveSas(pair[0].reqid);
    for (const Sa& sa : pair) engine->OnEvents({{KernelEvent::Kind::kSaDeleted, sa}});
  }

  Answer Connect(int fd, const std::string& address = "10.9.0.2", uint16_t port = 443) {
    const Answer answer = engine->Connect(client, fd, fd, At(address, port));
    if (answer.verdict != wire::Verdict::kRefused) {
      SocketFacts& facts = kernel.sockets.at(fd).facts;
      facts.tcp_state = 1;
      facts.remote = At(address, port);
      facts.local = At(facts.remote.address.family == Family::kV4 ? "10.9.0.1" : "fd00::1",
                       static_cast<uint16_t>(50'000 + fd));
    }
    return answer;
  }

  int Socket() { return kernel.AddSocket({Address::AnyOf(Family::kV4), 0}, {}); }
  int Listener(const std::string& address = "0.0.0.0", uint16_t port = 80) {
    const bool v6 = address.find(':') != std::string::npos;
    return kernel.AddSocket(At(address, port), {}, v6);
  }
  Answer Listen(int fd) {
    const Answer answer = engine->Listen(client, fd, fd);
    if (answer.verdict != wire::Verdict::kRefused) kernel.sockets.at(fd).facts.tcp_state = 10;
    return answer;
  }
  int Child(int listener, const std::string& from = "10.9.0.2", uint16_t port = 40'000) {
    const SocketAddress peer = At(from, port);
    const FakeKernel::Socket& parent = kernel.sockets.at(listener);
    const std::string us = peer.address.family == Family::kV4 ? "10.9.0.1" : "fd00::1";
    const int fd =
        kernel.AddSocket(At(us, parent.facts.local.port), peer, parent.facts.v6_socket, 1);
    kernel.sockets.at(fd).facts.mark = parent.facts.mark;
    kernel.sockets.at(fd).policy = parent.policy;
    return fd;
  }
  Answer Accept(int fd) const { return engine->Accept(client, fd, fd); }

  // A connect that may have to wait; what became of it.
  Answer Begin(int fd, bool nonblocking = false, const std::string& address = "10.9.0.2",
               uint16_t port = 443) const {
    return engine->Connect(client, fd, fd, At(address, port), nonblocking);
  }
  std::optional<Answer> AnswerTo(uint64_t ticket) const {
    auto it = observer.answers.find(ticket);
    if (it == observer.answers.end()) return std::nullopt;
    return it->second;
  }
  // The reason of a refusal; nothing where it was none, or there is no answer yet.
  std::optional<Reason> RefusalOf(uint64_t ticket) const {
    const std::optional<Answer> answer = AnswerTo(ticket);
    if (!answer || answer->verdict != wire::Verdict::kRefused) return std::nullopt;
    return answer->reason;
  }

  FakeKernel::Socket& SocketOf(int fd) { return kernel.sockets.at(fd); }
  const Latch& LatchOf(uint64_t id) const { return engine->database().Find(id)->latch; }
  // Its program closes it.
  void CloseSocket(int fd) { SocketOf(fd).live = SocketOf(fd).held = false; }

  State StateOf(uint64_t id) const {
    const Entry* entry = engine->database().Find(id);
    return entry == nullptr ? State::kClosed : entry->latch.state;
  }

  Result<void> started;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_FIXTURE_H_
