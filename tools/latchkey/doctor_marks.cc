#include "tools/latchkey/doctor_marks.h"

#include <fmt/format.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "tools/latchkeyd/kernel/netlink_socket.h"

namespace latchkey::tool {
namespace {

std::vector<uint8_t> Request(uint8_t family) {
  nlmsghdr header{};
  fib_rule_hdr body{};
  header.nlmsg_type = RTM_GETRULE;
  header.nlmsg_len = sizeof(header) + sizeof(body);
  body.family = family;
  std::vector<uint8_t> octets(header.nlmsg_len);
  std::memcpy(octets.data(), &header, sizeof(header));
  std::memcpy(octets.data() + sizeof(header), &body, sizeof(body));
  return octets;
}

std::string RuleText(const MarkRule& rule) {
  std::string text = fmt::format("ip{} rule {}: {}fwmark {:#x}", rule.v6 ? " -6" : "",
                                 rule.priority, rule.inverted ? "not " : "", rule.mark);
  if (rule.mask != ~0u) text += fmt::format("/{:#x}", rule.mask);
  return text;
}

}  // namespace

std::optional<MarkRule> ParseMarkRule(std::span<const uint8_t> message) {
  nlmsghdr header;
  fib_rule_hdr body;
  if (message.size() < sizeof(header) + sizeof(body)) return std::nullopt;
  std::memcpy(&header, message.data(), sizeof(header));
  if (header.nlmsg_type != RTM_NEWRULE || header.nlmsg_len > message.size()) return std::nullopt;
  std::memcpy(&body, message.data() + sizeof(header), sizeof(body));
  MarkRule rule;
  rule.v6 = body.family == AF_INET6;
  rule.inverted = (body.flags & FIB_RULE_INVERT) != 0;
  bool masked = false;
  std::span<const uint8_t> rest = message.first(header.nlmsg_len).subspan(sizeof(header));
  rest = rest.subspan(std::min(rest.size(), size_t{NLMSG_ALIGN(sizeof(body))}));
  while (rest.size() >= sizeof(rtattr)) {
    rtattr attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > rest.size()) break;
    uint32_t value = 0;
    if (attribute.rta_len >= RTA_LENGTH(sizeof(value))) {
      std::memcpy(&value, rest.data() + RTA_LENGTH(0), sizeof(value));
      if (attribute.rta_type == FRA_PRIORITY) rule.priority = value;
      if (attribute.rta_type == FRA_FWMARK) rule.mark = value;
      if (attribute.rta_type == FRA_FWMASK) {
        rule.mask = value;
        masked = true;
      }
    }
    rest = rest.subspan(std::min(rest.size(), size_t{RTA_ALIGN(attribute.rta_len)}));
  }
  if (!masked && rule.mark != 0) rule.mask = ~0u;
  if (rule.mask == 0) return std::nullopt;
  return rule;
}

std::expected<std::vector<MarkRule>, std::string> ReadMarkRules() {
  auto socket = broker::NetlinkSocket::Open(NETLINK_ROUTE);
  if (!socket) return std::unexpected(socket.error().ToString());
  std::vector<MarkRule> rules;
  for (const uint8_t family : {AF_INET, AF_INET6}) {
    const auto done = socket->Dump(Request(family), [&](std::span<const uint8_t> message) {
      if (const auto rule = ParseMarkRule(message)) rules.push_back(*rule);
      return true;
    });
    // Kernels without rules, or without the family, have none.
    if (!done && done.error().number != EOPNOTSUPP && done.error().number != EAFNOSUPPORT) {
      return std::unexpected(done.error().ToString());
    }
  }
  return rules;
}

Findings MarkFindings(const std::vector<MarkRule>& rules, uint32_t mark_mask) {
  Findings findings;
  for (const MarkRule& rule : rules) {
    if ((rule.mask & mark_mask) == 0) continue;
    if ((rule.mark & mark_mask) != 0 || rule.mask != ~0u) {
      findings.push_back(Bad(
          fmt::format("{} uses bits of Latchkey's mark_mask ({:#x})", RuleText(rule), mark_mask),
          "set mark_mask in system.toml to bits that no rule uses"));
    } else if (!rule.inverted) {
      // Latched sockets carry a bit of ours: the whole mark is never equal.
      findings.push_back(
          Note(fmt::format("{} compares the whole mark: it holds for no socket that is latched",
                           RuleText(rule)),
               fmt::format("give it a mask: {:#x}/{:#x}", rule.mark, ~mark_mask)));
    }
  }
  if (findings.empty()) {
    findings.push_back(
        Ok(fmt::format("no routing rule uses the bits of mark_mask ({:#x})", mark_mask)));
  }
  return findings;
}

}  // namespace latchkey::tool
