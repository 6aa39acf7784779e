#include "policy/policy.h"

#include <algorithm>

namespace latchkey::policy {
namespace {

bool AddressFits(const std::vector<Prefix>& prefixes, const Address& address) {
  return prefixes.empty() || std::ranges::any_of(prefixes, [&](const Prefix& prefix) {
           return prefix.Contains(address);
         });
}

bool PortFits(const std::vector<PortRange>& ranges, uint16_t port) {
  if (ranges.empty()) return true;
  return port != 0 && std::ranges::any_of(
                          ranges, [port](const PortRange& range) { return range.Contains(port); });
}

}  // namespace

bool Matches(const Rule& rule, const Flow& flow) {
  if (rule.direction != Direction::kBoth && rule.direction != flow.direction) return false;
  if (rule.protocol != 0 && rule.protocol != flow.protocol) return false;
  return AddressFits(rule.remote, flow.remote.address) &&
         AddressFits(rule.local, flow.local.address) &&
         PortFits(rule.remote_port, flow.remote.port) && PortFits(rule.local_port, flow.local.port);
}

bool NamesServer(const Rule& rule) {
  return rule.direction == Direction::kIn && !rule.local_port.empty();
}

const Rule* FirstMatch(const Policy& policy, const Flow& flow) {
  if (flow.direction == Direction::kBoth) {
    Flow one = flow;
    one.direction = Direction::kIn;
    const Rule* const in = FirstMatch(policy, one);
    if (in != nullptr && (!LetsPass(in->action) || NamesServer(*in))) return in;
    one.direction = Direction::kOut;
    const Rule* const out = FirstMatch(policy, one);
    if (in == nullptr) return out;
    return out != nullptr && Bars(out->action) ? out : in;
  }
  const auto it =
      std::ranges::find_if(policy.rules, [&](const Rule& rule) { return Matches(rule, flow); });
  return it == policy.rules.end() ? nullptr : &*it;
}

}  // namespace latchkey::policy
