// What the tests of the page share: a reader of it that has nothing of the compiler's own, and
// rules made in one line.
#ifndef POLICY_PAGE_READER_H_
#define POLICY_PAGE_READER_H_

#include <sys/socket.h>

#include <utility>
#include <vector>

#include "policy/decide.h"
#include "shim/wire/page.h"

namespace latchkey::policy {

inline Prefix P(const char* text) { return Prefix::Parse(text).value(); }
inline SocketAddress S(const char* text, uint16_t port) {
  return {Address::Parse(text).value(), port};
}

// A system that asks for nothing.
inline const SystemPolicy kNoFile;
inline const std::vector<SpdEntry> kNoSpd;
inline const System kFree{kNoFile, kNoSpd};

// Reads the page as page.h says, octet by octet.
inline wire::Settle Ask(const wire::Page& page, const SocketAddress& remote,
                        uint8_t protocol = kProtocolTcp) {
  const bool v4 = remote.address.family == Family::kV4;
  for (uint32_t i = 0; i < page.rule_count; ++i) {
    const wire::PageRule& rule = page.rules[i];
    if (rule.protocol != 0 && rule.protocol != protocol) continue;
    if (rule.family != 0 && rule.family != (v4 ? AF_INET : AF_INET6)) continue;
    if (remote.port < rule.port_low || remote.port > rule.port_high) continue;
    bool inside = true;
    for (int bit = 0; bit < rule.prefix && inside; ++bit) {
      const auto octet = static_cast<size_t>(bit / 8);
      inside = ((rule.remote[octet] ^ remote.address.octets[octet]) & (0x80 >> (bit % 8))) == 0;
    }
    if (inside) return rule.settle;
  }
  return page.otherwise;
}

inline Rule Make(Action action, std::vector<Prefix> remote = {},
                 std::vector<PortRange> ports = {}) {
  Rule rule;
  rule.action = action;
  rule.remote = std::move(remote);
  rule.remote_port = std::move(ports);
  return rule;
}

}  // namespace latchkey::policy

#endif  // POLICY_PAGE_READER_H_
