#include "tools/latchkeyd/kernel/fence.h"

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <memory>
#include <utility>

#include "tools/latchkeyd/kernel/datagram_layout.h"

namespace latchkey::broker {
namespace {

alignas(8) constexpr uint8_t kObject[] = {
#include "tools/latchkeyd/kernel/fence_program.inc"
};

struct Hook {
  const char* program;
  bpf_attach_type type;
};

constexpr std::array<Hook, 7> kHooks = {{{"fence_connect4", BPF_CGROUP_INET4_CONNECT},
                                         {"fence_connect6", BPF_CGROUP_INET6_CONNECT},
                                         {"fence_sendmsg4", BPF_CGROUP_UDP4_SENDMSG},
                                         {"fence_sendmsg6", BPF_CGROUP_UDP6_SENDMSG},
                                         {"fence_sock_create", BPF_CGROUP_INET_SOCK_CREATE},
                                         {"fence_egress", BPF_CGROUP_INET_EGRESS},
                                         {"fence_ingress", BPF_CGROUP_INET_INGRESS}}};

const std::vector<std::string>& Maps() {
  static const std::vector<std::string> names = {"fences", "decided", "policies", "stops", "paths"};
  return names;
}

constexpr const char* kHeld = "held";

BpfSource Source(const std::map<std::string, int>& held) {
  const std::string layout =
      std::to_string(LATCHKEY_FENCE_LAYOUT) + "-" + std::to_string(LATCHKEY_LAYOUT);
  BpfSource source{"fence", kObject, "fence-" + layout, {}, Maps(), held};
  for (const Hook& hook : kHooks) source.programs.emplace_back(hook.program);
  return source;
}

// The kernel's number of a map; 0: not known.
uint32_t NumberOf(int map) {
  bpf_map_info info{};
  uint32_t length = sizeof(info);
  return bpf_obj_get_info_by_fd(map, &info, &length) == 0 ? info.id : 0;
}

std::unexpected<Error> Refused(const char* step) {
  const bool full = errno == E2BIG || errno == ENOSPC;
  return Fail(full ? Reason::kLimit : Reason::kKernelRefused, step, std::strerror(errno));
}

latchkey_place PlaceOf(const SocketAddress& remote) {
  latchkey_place place{};
  place.port = remote.port;
  if (remote.address.family == Family::kNone) return place;
  const bool v4 = remote.address.family == Family::kV4;
  place.family = v4 ? LATCHKEY_FAMILY_V4 : LATCHKEY_FAMILY_V6;
  Address address = remote.address;
  // To "any" is to loopback; so the programs, and the packets, say it.
  if (address == Address::AnyOf(Family::kV4)) address.octets = {127, 0, 0, 1};
  if (address == Address::AnyOf(Family::kV6)) address.octets[15] = 1;
  std::memcpy(place.address, address.octets.data(), v4 ? 4 : 16);
  return place;
}

SocketAddress AddressOf(const latchkey_place& place) {
  SocketAddress remote;
  remote.port = place.port;
  if (place.family == 0) return remote;
  const bool v4 = place.family == LATCHKEY_FAMILY_V4;
  remote.address.family = v4 ? Family::kV4 : Family::kV6;
  std::memcpy(remote.address.octets.data(), place.address, v4 ? 4 : 16);
  return remote;
}

latchkey_fence_rule RuleOf(const wire::PageRule& from) {
  latchkey_fence_rule rule{};
  rule.port_low = from.port_low;
  rule.port_high = from.port_high;
  rule.settle = static_cast<uint8_t>(from.settle);
  rule.stops = from.settle == wire::Settle::kBypass ? 0 : 1;
  rule.protocol = from.protocol;
  rule.protocol_mask = from.protocol == 0 ? 0 : 0xff;
  if (from.family == 0) return rule;
  rule.family = from.family == AF_INET ? LATCHKEY_FAMILY_V4 : LATCHKEY_FAMILY_V6;
  rule.family_mask = 0xffff;
  std::array<uint8_t, 16> mask{};
  const size_t most = from.family == AF_INET ? 32 : 128;
  for (size_t bit = 0; bit < std::min<size_t>(from.prefix, most); ++bit) {
    mask[bit / 8] |= static_cast<uint8_t>(0x80 >> (bit % 8));
  }
  std::array<uint8_t, 16> address{};
  for (size_t i = 0; i < address.size(); ++i) address[i] = from.remote[i] & mask[i];
  std::memcpy(rule.mask, mask.data(), mask.size());
  std::memcpy(rule.address, address.data(), address.size());
  return rule;
}

uint32_t KindOf(FenceDecision::Kind kind) {
  switch (kind) {
    case FenceDecision::Kind::kFlow:
      return LATCHKEY_DECIDED_FLOW;
    case FenceDecision::Kind::kPassive:
      return LATCHKEY_DECIDED_PASSIVE;
    case FenceDecision::Kind::kHeld:
      return LATCHKEY_DECIDED_HELD;
    case FenceDecision::Kind::kClear:
      return LATCHKEY_DECIDED_CLEAR;
    case FenceDecision::Kind::kLatched:
      return LATCHKEY_DECIDED_LATCHED;
    case FenceDecision::Kind::kHost:
      return LATCHKEY_DECIDED_HOST;
  }
  return 0;
}

}  // namespace

static_assert(static_cast<int>(wire::Settle::kAsk) == LATCHKEY_RULE_ASK);
static_assert(static_cast<int>(wire::Settle::kBypass) == LATCHKEY_RULE_BYPASS);
static_assert(static_cast<int>(wire::Settle::kDiscard) == LATCHKEY_RULE_DISCARD);
static_assert(static_cast<int>(wire::Settle::kProtect) == LATCHKEY_RULE_PROTECT);
static_assert(wire::kPageRules == LATCHKEY_FENCE_RULES);
static_assert(static_cast<int>(FenceStop::Kind::kConnect) == LATCHKEY_STOPPED_CONNECT);
static_assert(static_cast<int>(FenceStop::Kind::kSend) == LATCHKEY_STOPPED_SEND);
static_assert(static_cast<int>(FenceStop::Kind::kSocket) == LATCHKEY_STOPPED_SOCKET);
static_assert(static_cast<int>(FenceStop::Kind::kOut) == LATCHKEY_STOPPED_OUT);
static_assert(static_cast<int>(FenceStop::Kind::kIn) == LATCHKEY_STOPPED_IN);

Fence::Fence(const std::string& pins, const std::map<std::string, int>& held)
    : object_(LoadBpf(Source(held), pins)), cgroups_(Cgroups::Open()) {
  if (const auto map = held.find(kHeld); map != held.end()) held_ = NumberOf(map->second);
  if (object_ && object_->inherited) {
    stood_ = true;
    Inherit();
  }
}

Fence::~Fence() {
  if (object_ && standing_.empty()) UnpinBpf(Maps(), object_->pins);
}

std::string Fence::Lacking() const {
  if (!object_) return object_.error().ToString();
  if (!cgroups_) return cgroups_.error().ToString();
  return {};
}

std::string Fence::Complaint() const {
  if (!object_ || object_->not_pinned.empty()) return {};
  return "no later broker will find the fences of programs: " + object_->not_pinned;
}

void Fence::Inherit() {
  const int paths = Map("paths");
  uint64_t id = 0;
  std::vector<uint64_t> ids;
  for (int more = bpf_map_get_next_key(paths, nullptr, &id);
       more == 0 && ids.size() < LATCHKEY_MOST_FENCES;
       more = bpf_map_get_next_key(paths, &ids.back(), &id)) {
    ids.push_back(id);
  }
  for (const uint64_t each : ids) {
    latchkey_fence_path path{};
    Standing& standing = standing_[each];
    if (bpf_map_lookup_elem(paths, &each, &path) == 0) {
      path.text[sizeof(path.text) - 1] = '\0';
      standing.path = path.text;
      standing.apart = path.held != held_;
    }
    bpf_map_lookup_elem(Map("stops"), &each, &standing.told);
  }
}

void Fence::Erase(uint64_t id) const {
  for (const char* name : {"policies", "stops", "paths"}) bpf_map_delete_elem(Map(name), &id);
}

Result<void> Fence::Attach(uint64_t id, const std::string& path) {
  Result<UniqueFd> folder = cgroups_->OpenFolder(path);
  if (!folder) return std::unexpected(folder.error());
  for (const Hook& hook : kHooks) {
    const int program = object_->programs.at(hook.program).get();
    if (bpf_prog_attach(program, folder->get(), hook.type, BPF_F_ALLOW_MULTI) != 0) {
      return Refused("attach the fence");
    }
  }
  // A cgroup's number is its directory's.
  struct stat status {};
  if (fstat(folder->get(), &status) != 0) return Refused("number cgroup");
  const uint64_t cgroup = status.st_ino;
  if (bpf_map_update_elem(Map("fences"), &cgroup, &id, BPF_EXIST) != 0) {
    return Refused("name the fence");
  }
  return {};
}

Result<void> Fence::Enclose(uint64_t id, int32_t pid) {
  if (const std::string lacking = Lacking(); !lacking.empty()) {
    return Fail(Reason::kUnsupported, "fence", lacking);
  }
  if (id == 0 || standing_.contains(id)) {
    return Fail(Reason::kBadRequest, "fence", "its number is in use");
  }
  Result<std::string> path = cgroups_->MakeFor(pid);
  if (!path) return std::unexpected(path.error());
  latchkey_fence_path written{};
  const latchkey_stops none{};
  Result<void> done;
  if (path->size() >= sizeof(written.text)) {
    done = Fail(Reason::kLimit, "fence", "the cgroup's path is too long");
  } else {
    std::memcpy(written.text, path->data(), path->size());
    written.held = held_;
    // Its path first: one that is left half made is found, and taken away, by whoever comes.
    if (bpf_map_update_elem(Map("paths"), &id, &written, BPF_NOEXIST) != 0 ||
        bpf_map_update_elem(Map("stops"), &id, &none, BPF_ANY) != 0) {
      done = Refused("note the fence");
    }
  }
  stood_ = true;
  if (done) done = Attach(id, *path);
  if (done) done = cgroups_->Move(*path, pid);
  if (!done) {
    cgroups_->Remove(*path);
    Erase(id);
    return done;
  }
  standing_[id] = {*path, none, false};
  return {};
}

Result<void> Fence::SetRules(uint64_t id, const wire::Page& page, FenceIncoming incoming) {
  if (!object_) return std::unexpected(object_.error());
  const auto policy = std::make_unique<latchkey_fence_policy>();
  const uint32_t flags = page.flags.load(std::memory_order_relaxed);
  if ((flags & wire::kPageNoRules) != 0) policy->flags |= LATCHKEY_FENCE_OPEN;
  if ((flags & wire::kPageDenyDatagrams) != 0) policy->flags |= LATCHKEY_FENCE_DENY;
  if (incoming.datagrams) policy->flags |= LATCHKEY_FENCE_INCOMING;
  if (!incoming.connections) policy->flags |= LATCHKEY_FENCE_LISTEN;
  const auto standing = standing_.find(id);
  if (standing != standing_.end() && standing->second.apart) policy->flags |= LATCHKEY_FENCE_APART;
  policy->otherwise = static_cast<uint32_t>(page.otherwise);
  policy->count = std::min<uint32_t>(page.rule_count, wire::kPageRules);
  bool bypasses = page.otherwise == wire::Settle::kBypass && !incoming.datagrams;
  for (uint32_t i = 0; i < policy->count; ++i) {
    policy->rules[i] = RuleOf(page.rules[i]);
    bypasses = bypasses && page.rules[i].settle == wire::Settle::kBypass;
  }
  if (bypasses) policy->flags |= LATCHKEY_FENCE_BYPASS;
  if (bpf_map_update_elem(Map("policies"), &id, policy.get(), BPF_ANY) != 0) {
    return Refused("give a fence its rules");
  }
  return {};
}

Result<void> Fence::Decide(int fd, const FenceDecision& decision) {
  if (!object_) return std::unexpected(object_.error());
  if (!stood_) return {};
  const latchkey_decision value{KindOf(decision.kind), PlaceOf(decision.remote), decision.device};
  if (bpf_map_update_elem(Map("decided"), &fd, &value, BPF_ANY) != 0) {
    return Refused("note a decision");
  }
  return {};
}

void Fence::Forget(int fd) {
  if (object_ && stood_) bpf_map_delete_elem(Map("decided"), &fd);
}

std::vector<uint64_t> Fence::Fences() const {
  std::vector<uint64_t> ids;
  for (const auto& [id, standing] : standing_) ids.push_back(id);
  return ids;
}

bool Fence::Release(uint64_t id) {
  const auto found = standing_.find(id);
  if (found != standing_.end()) {
    if (!cgroups_ || !cgroups_->Remove(found->second.path)) return false;
    standing_.erase(found);
  }
  if (object_) Erase(id);
  return true;
}

std::vector<FenceStop> Fence::TakeStops() {
  std::vector<FenceStop> taken;
  for (auto& [id, standing] : standing_) {
    latchkey_stops now{};
    if (bpf_map_lookup_elem(Map("stops"), &id, &now) != 0) continue;
    for (size_t kind = 0; kind < std::size(now.of); ++kind) {
      const latchkey_stopped& stopped = now.of[kind];
      const uint64_t more = stopped.count - standing.told.of[kind].count;
      if (more == 0) continue;
      taken.push_back({id, static_cast<FenceStop::Kind>(kind), more,
                       static_cast<uint8_t>(stopped.protocol), AddressOf(stopped.place)});
    }
    standing.told = now;
  }
  return taken;
}

}  // namespace latchkey::broker
