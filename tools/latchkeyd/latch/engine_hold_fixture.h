// What the tests of unconnected UDP sockets share.
#ifndef TOOLS_LATCHKEYD_LATCH_ENGINE_HOLD_FIXTURE_H_
#define TOOLS_LATCHKEYD_LATCH_ENGINE_HOLD_FIXTURE_H_

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tools/latchkeyd/latch/engine_fixture.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

inline constexpr uint32_t kGuardBit = 0x80000000;
inline constexpr uint32_t kTags = 0x7fff0000;

// A rule about datagrams.
inline policy::Rule UdpRule(const std::string& name, Direction direction, policy::Action action,
                            std::vector<std::string> remotes = {}, uint16_t remote_port = 0) {
  policy::Rule rule;
  rule.name = name;
  rule.direction = direction;
  rule.protocol = kProtocolUdp;
  rule.action = action;
  rule.protection.mode = Mode::kTransport;
  for (const std::string& remote : remotes) rule.remote.push_back(*Prefix::Parse(remote));
  if (remote_port != 0) rule.remote_port = {{remote_port, remote_port}};
  return rule;
}

// A server's: whoever asks has SAs.
inline std::shared_ptr<const policy::Policy> ServerPolicy() {
  return MakePolicy({UdpRule("serve", Direction::kIn, policy::Action::kProtect)});
}
// A client's: it asks port 53 of others under SAs.
inline std::shared_ptr<const policy::Policy> ClientPolicy() {
  return MakePolicy({UdpRule("ask", Direction::kOut, policy::Action::kProtect, {}, 53)});
}

struct HoldBroker : Broker {
  using Broker::Broker;

  // A UDP socket bound to `address` and port.
  int Bound(uint16_t port = 53, const std::string& address = "0.0.0.0") {
    const int fd = kernel.AddUdp(address.find(':') != std::string::npos);
    SocketOf(fd).facts.local = At(address, port);
    return fd;
  }
  Answer Hold(int fd) const { return engine->Hold(client, fd, fd); }
  Answer Peer(int fd, const std::string& address = "10.9.0.2", uint16_t port = 53) const {
    return engine->Peer(client, fd, fd, At(address, port));
  }
  int Held(uint16_t port = 53, const std::string& address = "0.0.0.0") {
    const int fd = Bound(port, address);
    if (Hold(fd).verdict != wire::Verdict::kLatched) return -1;
    return fd;
  }
  bool TakesIn(int fd, const std::string& from, uint16_t port, const Sa* sa = nullptr) const {
    return kernel.TakesIn(fd, At(from, port), sa);
  }
  // What the kernel does with what a socket sends: the marked SPD entry that it meets first.
  Guard Leaving(int fd, const std::string& to, uint16_t port) const {
    const FakeKernel::Socket& socket = kernel.sockets.at(fd);
    const SocketAddress remote = At(to, port);
    const Address source =
        At(remote.address.family == Family::kV4 ? "10.9.0.1" : "fd00::1", 0).address;
    const Guard* found = nullptr;
    for (const Guard& guard : kernel.guards) {
      if (!guard.out || (guard.mark & socket.facts.mark) != guard.mark) continue;
      if (!guard.selector.Matches(kProtocolUdp, {source, socket.facts.local.port}, remote))
        continue;
      if (found == nullptr || guard.priority < found->priority) found = &guard;
    }
    if (found != nullptr) return *found;
    Guard nothing;  // of ours: the SPD decides
    nothing.action = Guard::Action::kAllow;
    return nothing;
  }
  bool Sends(int fd, const std::string& to, uint16_t port, uint32_t reqid) const {
    const Guard guard = Leaving(fd, to, port);
    return guard.action == Guard::Action::kEsp && guard.reqid == reqid;
  }
  bool SendsNothing(int fd, const std::string& to, uint16_t port) const {
    return Leaving(fd, to, port).action == Guard::Action::kBlock;
  }
  bool SendsClear(int fd, const std::string& to, uint16_t port) const {
    return Leaving(fd, to, port).action == Guard::Action::kAllow;
  }
  size_t Refusals(const std::string& word) const {
    return static_cast<size_t>(std::ranges::count_if(observer.log, [&](const std::string& line) {
      return line.starts_with("refused: " + word);
    }));
  }
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENGINE_HOLD_FIXTURE_H_
