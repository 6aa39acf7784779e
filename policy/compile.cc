#include "policy/compile.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
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

PageRule Make(const Prefix& remote, const PortRange& ports, Settle settle) {
  PageRule rule{};
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

class Compiler {
 public:
  explicit Compiler(wire::Page& page) : page_(page) {}

  void Add(const Rule& rule) {
    if (rule.direction == Direction::kIn) return;
    if (rule.protocol != 0 && rule.protocol != kProtocolTcp) return;
    std::vector<Prefix> remotes = rule.remote;
    if (remotes.empty()) remotes.push_back(Prefix{});
    std::vector<PortRange> ports = rule.remote_port;
    if (ports.empty()) ports.push_back(kAnyPort);
    // A local endpoint is not known before connect: only the broker can tell whether it fits.
    const bool unsure = !rule.local.empty() || !rule.local_port.empty();
    Settle settle = Settle::kAsk;
    if (!unsure && rule.action == Action::kBypass) settle = Settle::kBypass;
    if (!unsure && rule.action == Action::kDiscard) settle = Settle::kDiscard;
    for (const Prefix& remote : remotes) {
      for (const PortRange& range : ports) {
        if (!unsure && rule.action == Action::kProtect) AddLoopback(remote, range);
        Put(Make(remote, range, settle));
      }
    }
  }

  void Otherwise(Action action) {
    page_.otherwise = action == Action::kDiscard ? Settle::kDiscard : Settle::kBypass;
    if (full_) page_.otherwise = Settle::kAsk;
  }

 private:
  // Within the host nothing is ever latched: a protect rule lets loopback pass (decide.h).
  void AddLoopback(const Prefix& remote, const PortRange& range) {
    for (const Prefix& loopback : kLoopbacks) {
      if (remote.base.family == Family::kNone) {
        Put(Make(loopback, range, Settle::kBypass));
      } else if (loopback.Overlaps(remote)) {
        Put(Make(remote.length > loopback.length ? remote : loopback, range, Settle::kBypass));
      }
    }
  }

  void Put(const PageRule& rule) {
    if (page_.rule_count >= wire::kPageRules) {
      full_ = true;
      return;
    }
    page_.rules[page_.rule_count++] = rule;
  }

  wire::Page& page_;
  bool full_ = false;
};

}  // namespace

void CompileInto(const Policy& policy, wire::Page& page) {
  const uint32_t generation = page.generation.load(std::memory_order_relaxed);
  page.generation.store(generation | 1, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_release);
  page.rule_count = 0;
  Compiler compiler(page);
  for (const Rule& rule : policy.rules) compiler.Add(rule);
  compiler.Otherwise(policy.otherwise);
  if (policy.otherwise == Action::kDiscard) {
    page.flags.fetch_or(wire::kPageDenyDatagrams);
  } else {
    page.flags.fetch_and(~wire::kPageDenyDatagrams);
  }
  if (policy.rules.empty() && policy.otherwise == Action::kSystem) {
    page.flags.fetch_or(wire::kPageNoRules);
  } else {
    page.flags.fetch_and(~wire::kPageNoRules);
  }
  page.generation.store((generation | 1) + 1, std::memory_order_release);
}

}  // namespace latchkey::policy
