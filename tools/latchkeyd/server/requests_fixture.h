// What the protocol's tests share: every type, messages octet by octet, and whether they end a
// connection.
#ifndef TOOLS_LATCHKEYD_SERVER_REQUESTS_FIXTURE_H_
#define TOOLS_LATCHKEYD_SERVER_REQUESTS_FIXTURE_H_

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>

#include "tools/latchkeyd/server/requests.h"
#include "tools/latchkeyd/server/server_fixture.h"

namespace latchkey::broker {

inline constexpr wire::Type kRequests[] = {
    wire::Type::kOpen,        wire::Type::kAttach,  wire::Type::kConnect, wire::Type::kListen,
    wire::Type::kAccept,      wire::Type::kRelease, wire::Type::kList,    wire::Type::kShow,
    wire::Type::kSpd,         wire::Type::kSa,      wire::Type::kWhy,     wire::Type::kBreak,
    wire::Type::kResume,      wire::Type::kWatch,   wire::Type::kInquire, wire::Type::kWish,
    wire::Type::kBinding,     wire::Type::kHold,    wire::Type::kPeer,    wire::Type::kLatches,
    wire::Type::kInquirePeer, wire::Type::kFence};
inline constexpr wire::Type kReplies[] = {
    wire::Type::kOpened,   wire::Type::kAttached, wire::Type::kDecision, wire::Type::kLatch,
    wire::Type::kSpdEntry, wire::Type::kSaEntry,  wire::Type::kIncident, wire::Type::kDone,
    wire::Type::kEvent,    wire::Type::kFenced,   wire::Type::kBound};

// Once the server has closed what it is to close.
inline size_t OpenDescriptors(const Rig& rig) {
  rig.Settle();
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

// A good message of `type` on its own, without its descriptors.
inline std::vector<char> Message(wire::Type type) {
  wire::Header header = wire::MakeHeader(type, 9);
  std::vector<char> octets(header.size);
  if (type == wire::Type::kOpen) {
    const wire::Open open = Rig::OpenRequest();
    std::memcpy(octets.data(), &open, sizeof(open));
  }
  std::memcpy(octets.data(), &header, sizeof(header));
  return octets;
}

// Sends octets as they are, and says whether the server ended the connection without a word.
inline bool Ends(Rig& rig, const Peer& peer, const std::vector<char>& octets,
                 const std::vector<int>& descriptors = {}) {
  REQUIRE(wire::SendMessage(peer.fd.get(), octets.data(), static_cast<uint32_t>(octets.size()),
                            descriptors.data(), static_cast<int>(descriptors.size()), false) == 0);
  rig.Serve(peer);
  return peer.Ended() && !rig.server->HasConnection(peer.number);
}

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_REQUESTS_FIXTURE_H_
