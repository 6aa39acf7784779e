#include "policy/lint.h"

#include <algorithm>

#include "policy/cover.h"
#include "policy/toml_reader.h"

namespace latchkey::policy {
namespace {

// Pairs of regions that are compared for all rules of a policy, at most: a second's work.
constexpr size_t kCoverSteps = 20'000'000;

// Whether a peer that the rule is about can be a client on this host, whatever its addresses are.
bool MayBeThisHost(const Rule& rule) {
  return rule.remote.empty() || std::ranges::any_of(rule.remote, [](const Prefix& prefix) {
           return prefix.base.IsLoopback() || prefix.length == 0;
         });
}

bool BypassesTheHost(const Rule& rule) {
  return rule.action == Action::kBypass && rule.direction != Direction::kOut && MayBeThisHost(rule);
}

// Whether a rule keeps datagrams from going out just so, whatever the other end's port.
bool GoesOutGuarded(const Rule& rule) {
  return rule.direction != Direction::kIn && Bars(rule.action) && rule.protocol != kProtocolTcp &&
         rule.remote_port.empty();
}

// Whether a rule lets in datagrams of others than this host's programs, and gives way to rules for
// outgoing ones that bar what is not protected (FirstMatch).
bool LetsIn(const Rule& rule) {
  const auto within = [](const Prefix& prefix) { return prefix.base.IsLoopback(); };
  return rule.direction != Direction::kOut && LetsPass(rule.action) && !NamesServer(rule) &&
         rule.protocol != kProtocolTcp &&
         (rule.remote.empty() || !std::ranges::all_of(rule.remote, within));
}

std::string Named(const Rule& rule) { return "rule " + Quote(rule.name); }

std::string CoverText(const std::vector<Rule>& rules, const std::vector<size_t>& covers) {
  std::string text;
  for (size_t i = 0; i < covers.size(); ++i) {
    if (i > 0) text += i + 1 == covers.size() ? " and " : ", ";
    text += Named(rules[covers[i]]);
  }
  return text + (covers.size() == 1 ? " before it covers it" : " before it cover it together");
}

class Linter {
 public:
  Linter(const Policy& policy, std::string_view file, const LintFacts& facts)
      : policy_(policy), file_(file), facts_(facts) {}

  std::vector<ParseError> Run() {
    if (facts_.is_signed && policy_.serial == 0) {
      warnings_.push_back(
          {file_, 1, 1, "signed, but without a serial: an older version could take its place"});
    }
    size_t steps = kCoverSteps;
    bool bypasses = false;
    for (size_t i = 0; i < policy_.rules.size(); ++i) {
      const Rule& rule = policy_.rules[i];
      if (const auto covers = CoveredBy(policy_.rules, i, steps); !covers.empty()) {
        Warn(rule, "can never match: " + CoverText(policy_.rules, covers));
      }
      if (LetsIn(rule)) OneThatLetsIn(rule, i);
      bypasses = bypasses || BypassesTheHost(rule);
      if (Protects(rule.action)) OneThatProtects(rule, bypasses);
    }
    std::ranges::stable_sort(warnings_, {}, &ParseError::line);
    return std::move(warnings_);
  }

 private:
  void Warn(const Rule& rule, const std::string& text) {
    warnings_.push_back({file_, rule.line, rule.column, Named(rule) + " " + text});
  }

  void OneThatLetsIn(const Rule& rule, size_t place) {
    for (size_t i = 0; i < policy_.rules.size(); ++i) {
      const Rule& other = policy_.rules[i];
      // One for both directions stands for outgoing ones too, where it stands.
      const bool counts = rule.direction == Direction::kIn || i < place;
      if (!counts || !GoesOutGuarded(other) || !Share(rule.remote, other.remote) ||
          !Share(rule.local, other.local) || !Share(rule.local_port, other.local_port)) {
        continue;
      }
      Warn(rule, "gives way to " + Named(other) +
                     " where a UDP socket without a connection is concerned: once it has sent "
                     "there, it hears nothing from there in clear; a rule with direction = \"in\" "
                     "and local_port says for which servers it is");
      return;
    }
  }

  void OneThatProtects(const Rule& rule, bool bypasses) {
    if (rule.peer.ids.empty()) {
      Warn(rule, "names no peer: any authenticated peer will do");
    } else if (std::ranges::find(rule.peer.ids, "*") != rule.peer.ids.end()) {
      Warn(rule, "has the peer id \"*\": any name of one label will do");
    }
    if (rule.action == Action::kProtectOrBypass && facts_.may_bypass != true) {
      Warn(rule, "may go in clear: where the system protects, that needs the grant \"bypass\"" +
                     (facts_.may_bypass ? ", which " + facts_.system + " does not give" : ""));
    }
    if (rule.protection.pin == Pin::kReqid && rule.reqid == 0) {
      Warn(
          rule,
          "pins a reqid and names none: only a reqid that the key manager gives to this peer alone "
          "says who it is");
    }
    if (rule.direction == Direction::kOut) return;
    if (rule.direction == Direction::kBoth && rule.protocol != kProtocolUdp &&
        !rule.remote_port.empty()) {
      Warn(rule,
           "speaks of incoming connections by the client's port too, and they are refused "
           "(unsupported): direction = \"out\" leaves them to the rules after it");
      return;
    }
    if (rule.action == Action::kProtect && !bypasses && MayBeThisHost(rule)) {
      Warn(rule,
           "refuses clients on this host: a bypass rule before it, with remote = "
           "[\"127.0.0.0/8\", \"::1\"], would let them in");
    }
  }

  const Policy& policy_;
  const std::string file_;
  const LintFacts& facts_;
  std::vector<ParseError> warnings_;
};

}  // namespace

std::vector<ParseError> Lint(const Policy& policy, std::string_view file, const LintFacts& facts) {
  return Linter(policy, file, facts).Run();
}

}  // namespace latchkey::policy
