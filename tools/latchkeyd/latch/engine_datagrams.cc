// Connected UDP (RFC 5660, 5.2): a latch is made, moved and dissolved with the connection, and
// nothing that came under another is taken for the peer's.

#include <utility>

#include "policy/compile.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {

// The socket's flow is another now. (Of TCP the old one is over before it is asked about the new.)
// True when it is, or was, a held one, whose filter takes in nothing until OpenFilter().
bool Engine::Supersede(uint64_t cookie) {
  const Entry* old = database_.FindByCookie(cookie);
  if (old == nullptr) return false;
  const bool held = old->held || old->was_held;
  Close(old->latch.id, Reason::kClosed);
  return held;
}

// Connects the socket before its program does, and throws away what it has received until then.
// With the policy alone in force others could still get something into the queue between our
// draining and the program's connect: what has the same SAs, or comes by the other family.
Result<SocketFacts> Engine::ConnectDatagrams(const Request& request, const SocketFacts& facts) {
  kernel_.ConnectDatagrams(request.fd, facts, request.remote, request.scope);
  return InspectFlow(request.fd);
}

// Takes a socket from its old peer to the one that it sends to in clear; what it has received is
// thrown away. Until it is connected anew what other threads send is for the old one: its flow
// alone is let pass meanwhile, and its mark keeps back all else. False where it cannot be connected
// there, and has to keep its mark: the program's own connect, which fails too, says why.
Result<bool> Engine::MoveDatagrams(int fd, const SocketFacts& facts, const Flow& flow,
                                   uint32_t scope) {
  kernel_.PushOut(fd);
  if (flow.remote.address.family == Family::kNone) {  // it is to be connected to nobody
    Block(kernel_, fd, facts, facts.v6_socket ? Family::kV6 : Family::kV4);
    kernel_.Drain(fd);
    return true;
  }
  Flow there = flow;
  if (there.remote.address.IsAny()) {  // to that is to this host, as the kernel takes it
    const bool v6 = there.remote.address.family == Family::kV6;
    const auto loopback = Address::Parse(v6 ? "::1" : "127.0.0.1");
    there.remote.address = facts.local.address.IsAny() ? *loopback : facts.local.address;
  }
  if (Result<void> done = AllowClear(kernel_, fd, facts, there); !done) {
    return std::unexpected(done.error());
  }
  kernel_.ConnectDatagrams(fd, facts, flow.remote, scope);
  kernel_.PushOut(fd);
  const Result<SocketFacts> now = InspectFlow(fd);
  return now && now->remote == there.remote;
}

// connect(AF_UNSPEC) was called: no peer, no latch, and nothing left of what came under it.
Answer Engine::ReleaseDatagrams(const Client& client, int fd, int fd_hint,
                                const SocketFacts& facts) {
  const Answer nothing{wire::Verdict::kBypass, Reason::kNone, 0, 0};
  if (facts.remote.address.family != Family::kNone) return nothing;  // connected anew meanwhile
  const Entry* entry = database_.FindByCookie(facts.cookie);
  if (entry != nullptr && entry->held) return nothing;  // it was not connected
  // Bound still, it takes in from anybody again: under the rules, as it was, or as at its bind.
  const bool was_held = entry != nullptr && entry->was_held;
  const bool holds = facts.local.port != 0 && (was_held || policy::HoldsIncoming(*client.policy));
  const bool guarded = (facts.mark & options_.guard_mark) != 0;
  if (entry == nullptr && !guarded) return holds ? Hold(client, fd, fd_hint) : nothing;
  const Flow flow = entry != nullptr ? entry->latch.flow : Flow{};
  const Family own = facts.v6_socket ? Family::kV6 : Family::kV4;
  Block(kernel_, fd, facts,
        flow.remote.address.family == Family::kNone ? own : flow.remote.address.family);
  kernel_.Drain(fd);
  Supersede(facts.cookie);
  if (holds) return Hold(client, fd, fd_hint);
  SocketPolicy clear;
  clear.kind = SocketPolicy::Kind::kClear;
  Result<void> done = kernel_.SetPolicy(fd, facts, clear);
  if (done) done = kernel_.SetMark(fd, facts, 0, options_.guard_mark);
  if (!done) return Refuse(client, flow, done.error().reason, done.error().ToString());
  return nothing;
}

}  // namespace latchkey::broker
