// Devices past which the SPD is not asked.
//
// disable_xfrm, of IPv4 packets that leave: what a socket's own policy protects stays protected,
// the data of connected flows. What is left to the SPD goes out in clear: whatever an unconnected
// UDP socket sends, and what the kernel sends for a connection without asking its socket. So
// nothing new is latched by such a device; LARVAL latches, whose packets an SPD entry alone keeps
// back, break; unconnected UDP sockets are kept from IPv4 by their own policies until the setting
// is gone, since nobody can say by which device the next datagram leaves. Established connections
// go on: of them no payload is at stake.
//
// disable_policy, of packets that come in, of IPv4 and of IPv6: a listener's own policy, which asks
// for an SA where all its clients are to be protected, and the filters of unconnected UDP sockets
// hold all the same. Who is kept out by SPD entries alone is not: such clients are refused at
// accept, also those that came while it was so.

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// The kernel tells nobody of a change. Less than a second, whenever in it the broker looks.
constexpr int64_t kLookMs = 450;
constexpr const char* kDisableXfrm = "disable_xfrm";
constexpr const char* kDisablePolicy = "disable_policy";
constexpr Family kFamilies[] = {Family::kV4, Family::kV6};

bool Speaks(const std::vector<Family>& families, Family family) {
  return std::ranges::find(families, family) != families.end();
}

}  // namespace

// Why what leaves for a flow would pass the SPD by; empty: it does not.
std::string Engine::PastSpd(int fd, uint32_t mark, const Flow& flow) {
  if (no_xfrm_.out.empty() || flow.remote.address.family != Family::kV4) return {};
  if (no_xfrm_.out.contains("all")) return SettingText({"all"}, Family::kV4, kDisableXfrm);
  const std::optional<Route> route =
      kernel_.RouteTo(fd, flow.local.address, flow.remote.address, mark | options_.guard_mark);
  if (route && !no_xfrm_.out.contains(route->device)) return {};
  return SettingText(route ? std::set{route->device} : no_xfrm_.out, Family::kV4, kDisableXfrm);
}

// The same of a socket that may send to anybody, by whatever device; one that speaks IPv6 too is of
// use all the same.
std::string Engine::SpeaksPastSpd(const SocketFacts& facts) const {
  if (no_xfrm_.out.empty() || Speaks(FamiliesOf(facts), Family::kV6)) return {};
  return SettingText(no_xfrm_.out, Family::kV4, kDisableXfrm);
}

// Of an unconnected UDP socket that is to send nothing any more: the family that its own policy has
// to block. The other one is kept by the mark and the standing BLOCK.
Family Engine::FamilyToBlock(const SocketFacts& facts) const {
  const bool v4_open = !no_xfrm_.out.empty() && Speaks(FamiliesOf(facts), Family::kV4);
  return facts.v6_socket && !v4_open ? Family::kV6 : Family::kV4;
}

// Why an unconnected UDP socket can have nothing to do with a peer for now; empty: it can.
std::string Engine::WhyShut(const Entry& entry, const Address& remote) const {
  if (remote.family != Family::kV4) return {};
  if (!no_xfrm_.out.empty()) return SettingText(no_xfrm_.out, Family::kV4, kDisableXfrm);
  return entry.held->shut ? "its socket is still kept from IPv4" : "";
}

// Why it is not known that what lies in a child's queue came under an SA; empty: it did. (null:
// what kept clients out was not a latched listener.)
std::string Engine::CamePastSpd(const Entry* listener, uint64_t cookie, Family family) {
  if (listener != nullptr) {
    bool leans = false;
    EachGuard(*listener, [&](const Guard& guard) {
      leans = leans || (!guard.out && guard.selector.family == family);
    });
    if (!leans) return {};
  }
  if (const auto& devices = no_xfrm_.In(family); !devices.empty()) {
    return SettingText(devices, family, kDisablePolicy);
  }
  return came_past_spd_.erase(cookie) > 0 ? "it came while the SPD was not asked" : "";
}

// Whoever waits to be accepted may have come while the SPD was not asked. False where it is not
// known who does.
bool Engine::NoteWhoCamePastSpd(Family family) {
  const Result<std::vector<LiveSocket>> live = kernel_.LiveSockets();
  if (!live) return false;
  const std::set<uint64_t> before = std::exchange(came_past_spd_, {});
  for (const LiveSocket& socket : *live) {
    const bool waits = socket.protocol == kProtocolTcp && socket.tcp_state != kTcpListen &&
                       database_.FindByCookie(socket.cookie) == nullptr;
    if (!waits) continue;
    if (before.contains(socket.cookie) || socket.remote.address.family == family) {
      came_past_spd_.insert(socket.cookie);
    }
  }
  return true;
}

Result<void> Engine::LookForNoXfrm() {
  const int64_t now = kernel_.NowMs();
  if (no_xfrm_read_at_ && now - *no_xfrm_read_at_ < kLookMs) return {};
  no_xfrm_read_at_ = now;
  const Result<NoXfrm> found = kernel_.FindNoXfrm();
  if (!found) {  // what was known stands
    if (!std::exchange(no_xfrm_unreadable_, true)) {
      observer_.OnWarning("it is not known any more whether the SPD is asked: " +
                          found.error().ToString());
    }
    return std::unexpected(found.error());
  }
  no_xfrm_unreadable_ = false;
  const NoXfrm before = std::exchange(no_xfrm_, *found);
  for (const Family family : kFamilies) {
    const std::set<std::string>& had = before.In(family);
    std::set<std::string>& has = family == Family::kV6 ? no_xfrm_.in_v6 : no_xfrm_.in_v4;
    if (has.empty() && !had.empty() && !NoteWhoCamePastSpd(family)) has = had;
    if (has == had) continue;
    if (has.empty()) {
      observer_.OnWarning("the SPD is asked again about what comes in");
      continue;
    }
    observer_.OnWarning(SettingText(has, family, kDisablePolicy) +
                        ": there the SPD is not asked about packets that come in. Who connects and "
                        "is to be protected is refused by servers that lean on it (no-xfrm)");
  }
  if (!no_xfrm_.out.empty() && before.out != no_xfrm_.out) {
    observer_.OnWarning(SettingText(no_xfrm_.out, Family::kV4, kDisableXfrm) +
                        ": there the SPD is not asked about IPv4 packets that leave. Nothing new "
                        "is latched that would leave so, unconnected UDP sockets send nothing by "
                        "IPv4, and of established connections the last ACKs and RSTs leave in "
                        "clear (no-xfrm)");
  } else if (no_xfrm_.out.empty() && !before.out.empty()) {
    observer_.OnWarning("the SPD is asked again about what leaves");
  }
  FollowNoXfrm();
  return {};
}

// Routes change, and sockets are out of reach for a while: so it is done at each look.
void Engine::FollowNoXfrm() {
  const bool shut = !no_xfrm_.out.empty();
  for (const uint64_t id : shut ? std::set(larvals_) : std::set<uint64_t>{}) {
    Entry& entry = *database_.Find(id);
    const std::optional<int> fd = kernel_.Borrow(entry.hint);
    if (!fd) continue;
    const Result<SocketFacts> facts = kernel_.Inspect(*fd);
    const bool past = facts && !PastSpd(*fd, facts->mark, entry.latch.flow).empty();
    kernel_.GiveBack(*fd);
    if (past) Break(entry, Reason::kNoXfrm);
  }
  for (const uint64_t id : database_.listeners()) {
    Entry& entry = *database_.Find(id);
    if (!entry.held || entry.held->shut == shut) continue;
    if (Speaks(entry.held->families, Family::kV4)) ShutV4(entry, shut);
  }
}

// Keeps an unconnected UDP socket from IPv4 by its own policy, or gives it back.
void Engine::ShutV4(Entry& entry, bool shut) {
  Held& held = *entry.held;
  if (shut) RefreshHeld(entry);  // the page knows, then the kernel
  if (const std::optional<int> fd = kernel_.Borrow(entry.hint)) {
    const Result<SocketFacts> facts = kernel_.Inspect(*fd);
    Result<void> done = facts ? Result<void>{} : std::unexpected(facts.error());
    // One that is held no more stays blocked.
    if (done && (shut || !held.regions.empty())) {
      SocketPolicy policy;
      policy.kind = shut ? SocketPolicy::Kind::kBlock : SocketPolicy::Kind::kClear;
      policy.family = Family::kV4;
      done = kernel_.SetPolicy(*fd, *facts, policy);
    }
    kernel_.GiveBack(*fd);
    if (done) {
      held.shut = shut;
    } else {
      observer_.OnWarning("latch " + std::to_string(entry.latch.id) + ": its socket cannot be " +
                          (shut ? "kept from" : "given back") +
                          " IPv4: " + done.error().ToString());
    }
  }
  if (!shut) RefreshHeld(entry);
}

}  // namespace latchkey::broker
