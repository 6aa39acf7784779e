// Devices by which IPv4 packets leave without the SPD being asked (net.ipv4.conf.DEV.disable_xfrm).
//
// What a socket's own policy protects stays protected: the data of connected flows. What is left to
// the SPD goes out in clear: whatever an unconnected UDP socket sends, and what the kernel sends
// for a connection without asking its socket. So nothing new is latched by such a device; LARVAL
// latches, whose packets an SPD entry alone keeps back, break; unconnected UDP sockets are kept
// from IPv4 by their own policies until the setting is gone, since nobody can say by which device
// the next datagram leaves. Established connections go on: of them no payload is at stake.

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"
#include "tools/latchkeyd/latch/protect.h"

namespace latchkey::broker {
namespace {

// The kernel tells nobody of a change. Less than a second, whenever in it the broker looks.
constexpr int64_t kLookMs = 450;
constexpr const char* kDisableXfrm = "disable_xfrm";

bool Speaks(const std::vector<Family>& families, Family family) {
  return std::ranges::find(families, family) != families.end();
}

}  // namespace

// Why what leaves for a flow would pass the SPD by; empty: it does not.
std::string Engine::PastSpd(int fd, uint32_t mark, const Flow& flow) {
  if (no_xfrm_.out.empty() || flow.remote.address.family != Family::kV4) return {};
  if (no_xfrm_.out.contains("all")) return SettingText({"all"}, Family::kV4, kDisableXfrm);
  const std::optional<std::string> device =
      kernel_.DeviceTo(fd, flow.local.address, flow.remote.address, mark | options_.guard_mark);
  if (device && !no_xfrm_.out.contains(*device)) return {};
  return SettingText(device ? std::set{*device} : no_xfrm_.out, Family::kV4, kDisableXfrm);
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
  if (!no_xfrm_.out.empty() && before.out != no_xfrm_.out) {
    observer_.OnWarning(SettingText(no_xfrm_.out, Family::kV4, kDisableXfrm) +
                        ": there the SPD is not asked about IPv4 packets that leave. Nothing new "
                        "is latched that would leave so, unconnected UDP sockets send nothing by "
                        "IPv4, and of established connections the last ACKs and RSTs leave in "
                        "clear (no-xfrm)");
  } else if (no_xfrm_.out.empty() && !before.out.empty()) {
    observer_.OnWarning("the SPD is asked again about all that leaves");
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
