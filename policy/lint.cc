#include "policy/lint.h"

#include <algorithm>
#include <string>

namespace latchkey::policy {
namespace {

bool Covers(const Prefix& wide, const Prefix& narrow) {
  return wide.base.family == narrow.base.family && wide.length <= narrow.length &&
         wide.Contains(narrow.base);
}

// True when each of `narrow` lies in one of `wide`; an empty list is everything.
template <typename T, typename In>
bool CoversAll(const std::vector<T>& wide, const std::vector<T>& narrow, const In& in) {
  if (wide.empty()) return true;
  return !narrow.empty() && std::ranges::all_of(narrow, [&](const T& each) {
    return std::ranges::any_of(wide, [&](const T& one) { return in(one, each); });
  });
}

bool Covers(const Rule& earlier, const Rule& later) {
  const auto prefix = [](const Prefix& wide, const Prefix& narrow) { return Covers(wide, narrow); };
  const auto ports = [](const PortRange& wide, const PortRange& narrow) {
    return wide.low <= narrow.low && narrow.high <= wide.high;
  };
  return (earlier.direction == Direction::kBoth || earlier.direction == later.direction) &&
         (earlier.protocol == 0 || earlier.protocol == later.protocol) &&
         CoversAll(earlier.remote, later.remote, prefix) &&
         CoversAll(earlier.local, later.local, prefix) &&
         CoversAll(earlier.remote_port, later.remote_port, ports) &&
         CoversAll(earlier.local_port, later.local_port, ports);
}

bool BypassesTheHost(const Rule& rule) {
  return rule.action == Action::kBypass && rule.direction != Direction::kOut &&
         (rule.remote.empty() || std::ranges::any_of(rule.remote, [](const Prefix& prefix) {
            return prefix.base.IsLoopback() || prefix.length == 0;
          }));
}

}  // namespace

std::vector<ParseError> Lint(const Policy& policy, std::string_view file, bool is_signed) {
  std::vector<ParseError> warnings;
  const auto warn = [&](int line, const std::string& text) {
    warnings.push_back({std::string(file), line, 1, text});
  };
  if (is_signed && policy.serial == 0) {
    warn(0, "signed, but without a serial: an older version could take its place");
  }
  bool bypasses = false;
  for (size_t i = 0; i < policy.rules.size(); ++i) {
    const Rule& rule = policy.rules[i];
    const std::string name = "rule \"" + rule.name + "\"";
    for (size_t earlier = 0; earlier < i; ++earlier) {
      if (!Covers(policy.rules[earlier], rule)) continue;
      warn(rule.line, name + " can never match: rule \"" + policy.rules[earlier].name +
                          "\" before it covers it");
      break;
    }
    bypasses = bypasses || BypassesTheHost(rule);
    if (!Protects(rule.action)) continue;
    if (rule.peer.ids.empty()) {
      warn(rule.line, name + " names no peer: any authenticated peer will do");
    } else if (std::ranges::find(rule.peer.ids, "*") != rule.peer.ids.end()) {
      warn(rule.line, name + " has the peer id \"*\": any name of one label will do");
    }
    if (rule.action == Action::kProtectOrBypass) {
      warn(rule.line, name +
                          " may go in clear: where the system protects, that needs the grant "
                          "\"bypass\"");
    }
    if (rule.protection.pin == Pin::kReqid && rule.reqid == 0) {
      warn(rule.line, name +
                          " pins a reqid and names none: only a reqid that the key manager gives "
                          "to this peer alone says who it is");
    }
    if (rule.action == Action::kProtect && rule.direction != Direction::kOut && !bypasses) {
      warn(rule.line, name +
                          " refuses clients on this host: a bypass rule before it, with remote = "
                          "[\"127.0.0.0/8\", \"::1\"], would let them in");
    }
  }
  std::ranges::stable_sort(warnings, {}, &ParseError::line);
  return warnings;
}

}  // namespace latchkey::policy
