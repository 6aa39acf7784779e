#include "shim/page_view.h"

#include <netinet/in.h>

namespace latchkey::shim {
namespace {

constexpr socklen_t kShortestV6 = 24;  // before scope ids there were (RFC 2133)

uint16_t HostOrder(uint16_t port) { return static_cast<uint16_t>(port >> 8 | port << 8); }

void Copy(uint8_t* to, const uint8_t* from, int count) {
  for (int i = 0; i < count; ++i) to[i] = from[i];
}

bool Mapped(const uint8_t* octets) {
  for (int i = 0; i < 10; ++i) {
    if (octets[i] != 0) return false;
  }
  return octets[10] == 0xff && octets[11] == 0xff;
}

bool Covers(const wire::PageRule& rule, const wire::Endpoint& remote) {
  if (rule.port_low > remote.port || remote.port > rule.port_high) return false;
  if (rule.family == 0) return true;
  if (rule.family != remote.family) return false;
  const int whole = rule.prefix / 8;
  for (int i = 0; i < whole; ++i) {
    if (rule.remote[i] != remote.address[i]) return false;
  }
  const int rest = rule.prefix % 8;
  return rest == 0 || ((rule.remote[whole] ^ remote.address[whole]) >> (8 - rest)) == 0;
}

}  // namespace

bool ReadEndpoint(const sockaddr* address, socklen_t length, wire::Endpoint& endpoint) {
  endpoint = wire::Endpoint{};
  if (address == nullptr || length < sizeof(sa_family_t)) return false;
  if (address->sa_family == AF_INET) {
    if (length < sizeof(sockaddr_in)) return false;
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    endpoint.family = AF_INET;
    endpoint.port = HostOrder(v4->sin_port);
    Copy(endpoint.address, reinterpret_cast<const uint8_t*>(&v4->sin_addr), 4);
    return true;
  }
  if (address->sa_family != AF_INET6 || length < kShortestV6) return false;
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
  endpoint.port = HostOrder(v6->sin6_port);
  const auto* octets = reinterpret_cast<const uint8_t*>(&v6->sin6_addr);
  if (Mapped(octets)) {
    endpoint.family = AF_INET;
    Copy(endpoint.address, octets + 12, 4);
    return true;
  }
  endpoint.family = AF_INET6;
  if (length >= sizeof(sockaddr_in6)) endpoint.scope = v6->sin6_scope_id;
  Copy(endpoint.address, octets, 16);
  return true;
}

bool IsLoopback(const wire::Endpoint& endpoint) {
  if (endpoint.family == AF_INET) return endpoint.address[0] == 127;
  for (int i = 0; i < 15; ++i) {
    if (endpoint.address[i] != 0) return false;
  }
  return endpoint.family == AF_INET6 && endpoint.address[15] == 1;
}

wire::Settle SettleConnect(const wire::Page& page, const wire::Endpoint& remote, uint8_t protocol) {
  const uint32_t before = page.generation.load(std::memory_order_acquire);
  if ((before & 1) != 0) return wire::Settle::kAsk;
  const uint32_t count = page.rule_count < wire::kPageRules ? page.rule_count : wire::kPageRules;
  wire::Settle settle = page.otherwise;
  for (uint32_t i = 0; i < count; ++i) {
    const wire::PageRule& rule = page.rules[i];
    if ((rule.protocol == 0 || rule.protocol == protocol) && Covers(rule, remote)) {
      settle = rule.settle;
      break;
    }
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return page.generation.load(std::memory_order_relaxed) == before ? settle : wire::Settle::kAsk;
}

bool BypassesAll(const wire::Page& page, const wire::Endpoint& remote) {
  const uint32_t before = page.generation.load(std::memory_order_acquire);
  if ((before & 1) != 0) return false;
  const uint32_t count = page.rule_count < wire::kPageRules ? page.rule_count : wire::kPageRules;
  wire::Settle settle = page.otherwise;
  // What counts is the first rule of each protocol; up to the first of both, all must bypass.
  for (uint32_t i = 0; i < count; ++i) {
    const wire::PageRule& rule = page.rules[i];
    const bool counts = rule.protocol == 0 || rule.settle != wire::Settle::kBypass;
    if (!counts || !Covers(rule, remote)) continue;
    settle = rule.settle;
    break;
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return page.generation.load(std::memory_order_relaxed) == before &&
         settle == wire::Settle::kBypass;
}

Ailment FindTrouble(const wire::Page& page, uint64_t cookie) {
  uint32_t slot = wire::SlotOf(cookie);
  for (uint32_t i = 0; i < wire::kPageSlots; ++i, slot = (slot + 1) & (wire::kPageSlots - 1)) {
    const uint64_t found = page.slots[slot].cookie.load(std::memory_order_acquire);
    if (found == 0) break;
    if (found != cookie) continue;
    // Its writer fills in the reason first.
    const wire::Trouble trouble = page.slots[slot].trouble.load(std::memory_order_acquire);
    const uint32_t reason = page.slots[slot].reason.load(std::memory_order_relaxed);
    return Ailment{trouble, static_cast<wire::Reason>(reason)};
  }
  return Ailment{};
}

}  // namespace latchkey::shim
