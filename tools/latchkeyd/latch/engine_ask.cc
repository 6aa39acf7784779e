// What a program asks about its own sockets (RFC 5660, 2.3: INQUIRE_LATCH).

#include "tools/latchkeyd/latch/binding.h"
#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// True for a socket that nothing was done with yet.
bool IsFresh(const SocketFacts& facts) {
  if (facts.stream_tcp) return facts.tcp_state == kTcpClose;
  return facts.local.port == 0 && facts.remote.address.family == Family::kNone;
}

}  // namespace

Result<SocketFacts> Engine::Reserve(int fd) {
  Result<SocketFacts> facts = InspectFlow(fd);
  if (!facts) return facts;
  if (!IsFresh(*facts) || database_.FindByCookie(facts->cookie) != nullptr) {
    return Fail(Reason::kBadRequest, "reserve socket", "it was used before");
  }
  // The standing BLOCK holds what leaves with the mark: a program cannot be quicker than its
  // request by another way than the shim.
  if (Result<void> done = kernel_.SetMark(fd, *facts, options_.guard_mark, options_.guard_mark);
      !done) {
    return std::unexpected(done.error());
  }
  return facts;
}

bool Engine::IsMarkedAlone(int fd) {
  const Result<SocketFacts> facts = InspectFlow(fd);
  const bool idle = facts && (facts->datagram_udp || facts->tcp_state == kTcpClose);
  return idle && (facts->mark & options_.guard_mark) != 0 &&
         database_.FindByCookie(facts->cookie) == nullptr;
}

Latch Engine::Shown(const Entry& entry) {
  Latch latch = entry.latch;
  if (entry.held) latch.dropped = kernel_.DroppedDatagrams(entry.hint.cookie);
  return latch;
}

std::optional<Latch> Engine::LatchOf(int fd) {
  const Result<SocketFacts> facts = kernel_.Inspect(fd);
  if (!facts || !facts->inet || !facts->own_netns) return std::nullopt;
  const Entry* entry = database_.FindByCookie(facts->cookie);
  if (entry == nullptr) return std::nullopt;
  Latch latch = Shown(*entry);
  // The database hears of what the kernel chose at connect a little later.
  if (facts->local.port != 0) latch.flow.local = facts->local;
  return latch;
}

std::optional<Latch> Engine::PeerLatchOf(int fd, uint64_t id) {
  std::optional<Latch> latch = LatchOf(fd);
  if (!latch || latch->id == id) return latch;
  const Entry* peer = database_.Find(id);
  if (peer == nullptr || peer->latch.listener != latch->id) return std::nullopt;
  return peer->latch;
}

uint64_t Engine::AskBinding(int fd) {
  const std::optional<Latch> latch = LatchOf(fd);
  // Manual keys have no IKE SA.
  if (!latch || latch->state != State::kEstablished || latch->clear ||
      latch->identity.auth != "pubkey" || latch->peering.remote.address.family == Family::kNone) {
    return 0;
  }
  const uint64_t ticket = keys_.AskKeys(latch->identity);
  if (ticket != 0) bindings_[ticket] = latch->id;
  return ticket;
}

void Engine::TellBinding(const KeyEvent& event) {
  const auto asked = bindings_.find(event.ticket);
  if (asked == bindings_.end()) return;
  const Entry* entry = database_.Find(asked->second);
  bindings_.erase(asked);
  const bool stands = entry != nullptr && entry->latch.state == State::kEstablished;
  observer_.OnBinding(event.ticket,
                      stands ? ChannelBinding(event.own_key, event.peer_key) : std::string());
}

}  // namespace latchkey::broker
