#include "policy/compile.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace latchkey::policy {
namespace {

using wire::PageRule;
using wire::Settle;

constexpr PortRange kAnyPort{0, 65535};

uint8_t FamilyOf(const Prefix& prefix) {
  switch (prefix.base.family) {
    case Family::kV4:
      return AF_INET;
    case Family::kV6:
      return AF_INET6;
    case Family::kNone:
      break;
  }
  return 0;
}

PageRule Make(const Prefix& remote, const PortRange& ports, uint8_t protocol, Settle settle) {
  PageRule rule{};
  rule.protocol = protocol;
  rule.family = FamilyOf(remote);
  rule.prefix = remote.length;
  rule.settle = settle;
  rule.port_low = ports.low;
  rule.port_high = ports.high;
  std::memcpy(rule.remote, remote.base.octets.data(), sizeof(rule.remote));
  return rule;
}

const Prefix kLoopbacks[] = {
    Prefix{Address{Family::kV4, {127}}, 8},
    Prefix{Address{Family::kV6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, 128},
};

// Where the system asks something of outgoing flows.
struct Strict {
  Prefix remote;  // of no family: both
  PortRange ports = kAnyPort;
  uint8_t protocol = 0;          // 0: both
  bool discards_within = false;  // the host's own flows too: the SPD does not decide about those
  bool by_rule = false;          // of the file: the kernel does not see to it by itself
};

bool Overlap(const Prefix& a, const Prefix& b) {
  return a.base.family == Family::kNone || b.base.family == Family::kNone || a.Overlaps(b);
}

bool Overlap(uint8_t a, uint8_t b) { return a == 0 || b == 0 || a == b; }

// True for what pages are about: TCP, UDP, or both (0).
bool IsOurs(uint8_t protocol) {
  return protocol == 0 || protocol == kProtocolTcp || protocol == kProtocolUdp;
}

void AddStrict(const SpdEntry& entry, std::vector<Strict>& strict) {
  if (entry.dir > 1 || entry.mark_mask != 0 || entry.if_id != 0) return;
  if (entry.bare && !entry.block) return;
  const Selector& s = entry.selector;
  if (!IsOurs(s.protocol)) return;
  const bool out = entry.dir == 1;
  Strict region;
  region.protocol = s.protocol;
  region.remote = out ? s.destination : s.source;
  if (region.remote.length == 0) region.remote.base = Address{s.family, {}};
  const uint16_t port = out ? s.destination_port : s.source_port;
  const uint16_t mask = out ? s.destination_mask : s.source_mask;
  // Masks between all and nothing are rare: any port, then.
  if (mask == 0xffff) region.ports = PortRange{port, port};
  strict.push_back(region);
}

void AddStrict(const Rule& rule, std::vector<Strict>& strict) {
  if (rule.direction == Direction::kIn || rule.action == Action::kBypass) return;
  if (!IsOurs(rule.protocol)) return;
  const std::vector<Prefix> remotes = rule.remote.empty() ? std::vector{Prefix{}} : rule.remote;
  const std::vector<PortRange> ports =
      rule.remote_port.empty() ? std::vector{kAnyPort} : rule.remote_port;
  for (const Prefix& remote : remotes) {
    for (const PortRange& range : ports) {
      strict.push_back(
          {remote, range, rule.protocol, rule.action == Action::kDiscard, /*by_rule=*/true});
    }
  }
}

std::vector<Strict> StrictRegions(const System& system) {
  std::vector<Strict> strict;
  for (const SpdEntry& entry : system.spd) AddStrict(entry, strict);
  for (const Rule& rule : system.file.rules) AddStrict(rule, strict);
  return strict;
}

// True when the system asks anything at all of some flow, whoever begins it.
bool AsksAnything(const System& system) {
  return std::ranges::any_of(system.spd,
                             [](const SpdEntry& entry) {
                               return entry.dir <= 1 && entry.mark_mask == 0 && entry.if_id == 0 &&
                                      (entry.block || !entry.bare);
                             }) ||
         std::ranges::any_of(system.file.rules,
                             [](const Rule& rule) { return rule.action != Action::kBypass; });
}

class Compiler {
 public:
  Compiler(std::vector<Strict> strict, wire::Page& page)
      : strict_(std::move(strict)), page_(page) {}

  void Add(const Rule& rule) {
    if (rule.direction == Direction::kIn || !IsOurs(rule.protocol)) return;
    std::vector<Prefix> remotes = rule.remote;
    if (remotes.empty()) remotes.push_back(Prefix{});
    std::vector<PortRange> ports = rule.remote_port;
    if (ports.empty()) ports.push_back(kAnyPort);
    // A local endpoint is not known before connect: only the broker can tell whether it fits.
    const bool unsure = !rule.local.empty() || !rule.local_port.empty();
    Settle settle = rule.action == Action::kSystem ? Settle::kAsk : Settle::kProtect;
    if (rule.action == Action::kBypass) settle = unsure ? Settle::kAsk : Settle::kBypass;
    if (rule.action == Action::kDiscard && !unsure) settle = Settle::kDiscard;
    for (const Prefix& remote : remotes) {
      for (const PortRange& range : ports) {
        if (!unsure && Protects(rule.action)) AddLoopback(remote, range, rule.protocol);
        if (settle != Settle::kBypass) {
          Put(Make(remote, range, rule.protocol, settle));
          continue;
        }
        const Settle tcp = Floor(remote, range, kProtocolTcp);
        const Settle udp = Floor(remote, range, kProtocolUdp);
        if (rule.protocol != kProtocolUdp) {
          Put(Make(remote, range, rule.protocol == 0 && tcp == udp ? 0 : kProtocolTcp, tcp));
        }
        if (rule.protocol == kProtocolUdp || (rule.protocol == 0 && tcp != udp)) {
          Put(Make(remote, range, kProtocolUdp, udp));
        }
      }
    }
  }

  void Otherwise(Action action) {
    if (action == Action::kSystem) {
      for (const Strict& region : strict_) {
        AddLoopback(region.remote, region.ports, region.protocol);
        Put(Make(region.remote, region.ports, region.protocol,
                 region.by_rule ? Settle::kProtect : Settle::kAsk));
      }
    }
    page_.otherwise = action == Action::kDiscard ? Settle::kDiscard : Settle::kBypass;
    if (full_) page_.otherwise = Settle::kProtect;  // by one of those that found no room, perhaps
    holds_datagrams_ = holds_datagrams_ || HoldsDatagrams(page_.otherwise);
  }

  // True when some datagram may only be sent after the broker was asked.
  bool holds_datagrams() const { return holds_datagrams_; }

 private:
  static bool HoldsDatagrams(Settle settle) {
    return settle == Settle::kProtect || settle == Settle::kDiscard;
  }

  // What becomes of a rule that bypasses, where the system may ask more.
  Settle Floor(const Prefix& remote, const PortRange& range, uint8_t protocol) const {
    Settle settle = Settle::kBypass;
    for (const Strict& region : strict_) {
      if (!Overlap(region.remote, remote) || !region.ports.Overlaps(range) ||
          !Overlap(region.protocol, protocol)) {
        continue;
      }
      if (region.by_rule) return Settle::kProtect;
      settle = Settle::kAsk;
    }
    return settle;
  }

  // Within the host nothing is ever latched: a protect rule lets loopback pass (decide.h).
  void AddLoopback(const Prefix& remote, const PortRange& range, uint8_t protocol) {
    for (const Prefix& loopback : kLoopbacks) {
      const bool discarded = std::ranges::any_of(strict_, [&](const Strict& region) {
        return region.discards_within && Overlap(region.remote, loopback);
      });
      if (discarded) continue;
      if (remote.base.family == Family::kNone) {
        Put(Make(loopback, range, protocol, Settle::kBypass));
      } else if (loopback.Overlaps(remote)) {
        Put(Make(remote.length > loopback.length ? remote : loopback, range, protocol,
                 Settle::kBypass));
      }
    }
  }

  void Put(const PageRule& rule) {
    if (page_.rule_count >= wire::kPageRules) {
      full_ = true;
      return;
    }
    page_.rules[page_.rule_count++] = rule;
    if (rule.protocol != kProtocolTcp && HoldsDatagrams(rule.settle)) holds_datagrams_ = true;
  }

  const std::vector<Strict> strict_;
  wire::Page& page_;
  bool full_ = false;
  bool holds_datagrams_ = false;
};

}  // namespace

bool HoldsIncoming(const Policy& policy) {
  return policy.otherwise == Action::kDiscard || RulesIncoming(policy);
}

bool RulesIncoming(const Policy& policy) {
  return std::ranges::any_of(policy.rules, [](const Rule& rule) {
    return rule.direction != Direction::kOut && rule.action != Action::kBypass &&
           (rule.protocol == 0 || rule.protocol == kProtocolUdp);
  });
}

bool RulesConnections(const Policy& policy, const SystemPolicy& file) {
  const auto speaks = [](const Rule& rule) {
    return rule.direction != Direction::kOut && !LetsPass(rule.action) &&
           (rule.protocol == 0 || rule.protocol == kProtocolTcp);
  };
  return !LetsPass(policy.otherwise) || std::ranges::any_of(policy.rules, speaks) ||
         std::ranges::any_of(file.rules, speaks);
}

void CompileInto(const Policy& policy, const System* system, wire::Page& page) {
  const uint32_t generation = page.generation.load(std::memory_order_relaxed);
  page.flags.fetch_or(wire::kPageDatagramRules | wire::kPageHold);
  page.generation.store(generation | 1, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_release);
  page.rule_count = 0;
  Compiler compiler(system != nullptr ? StrictRegions(*system)
                                      : std::vector{Strict{Prefix{}, kAnyPort, 0, true, true}},
                    page);
  for (const Rule& rule : policy.rules) compiler.Add(rule);
  compiler.Otherwise(policy.otherwise);
  if (HoldsIncoming(policy)) {
    page.flags.fetch_or(wire::kPageHold);
  } else {
    page.flags.fetch_and(~wire::kPageHold);
  }
  if (policy.otherwise == Action::kDiscard) {
    page.flags.fetch_or(wire::kPageDenyDatagrams);
  } else {
    page.flags.fetch_and(~wire::kPageDenyDatagrams);
  }
  if (policy.rules.empty() && policy.otherwise == Action::kSystem && system != nullptr &&
      !AsksAnything(*system)) {
    page.flags.fetch_or(wire::kPageNoRules);
  } else {
    page.flags.fetch_and(~wire::kPageNoRules);
  }
  if (!compiler.holds_datagrams()) page.flags.fetch_and(~wire::kPageDatagramRules);
  page.generation.store((generation | 1) + 1, std::memory_order_release);
}

}  // namespace latchkey::policy
