// A parsed policy: what an application asks for its flows (docs: latchkey-policy(5)).
#ifndef POLICY_POLICY_H_
#define POLICY_POLICY_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "policy/algorithms.h"
#include "policy/model/flow.h"
#include "policy/model/protection.h"

namespace latchkey::policy {

enum class Action : uint8_t { kProtect, kProtectOrBypass, kBypass, kDiscard, kSystem };

// True for the actions that ask for an SA.
constexpr bool Protects(Action action) {
  return action == Action::kProtect || action == Action::kProtectOrBypass;
}

// True for the actions that ask for nothing.
constexpr bool LetsPass(Action action) {
  return action == Action::kBypass || action == Action::kSystem;
}

// True for those that keep what is not protected from leaving.
constexpr bool Bars(Action action) {
  return action == Action::kProtect || action == Action::kDiscard;
}

// What happens to the socket of a latch that breaks.
enum class OnBreak : uint8_t {
  kReset,    // it ends with an error
  kSuspend,  // it stays open, nothing moves, until every conflict is gone
};

struct Rule {
  std::string name;  // "rule N" when the file gives none
  Direction direction = Direction::kBoth;
  uint8_t protocol = 0;                // 0 = any
  std::vector<Prefix> remote;          // empty: any
  std::vector<Prefix> local;           // empty: any
  std::vector<PortRange> remote_port;  // empty: any
  std::vector<PortRange> local_port;   // empty: any
  Action action = Action::kDiscard;
  ProtectionSpec protection;               // for kProtect
  std::optional<AlgorithmSet> algorithms;  // what `protection` accepts, where that was worked out
  PeerSpec peer;                           // for kProtect; no ids: any authenticated peer
  uint32_t reqid = 0;                      // 0: found
  std::string child;                       // IKE's child to initiate; empty: found
  OnBreak on_break = OnBreak::kReset;
  std::chrono::milliseconds acquire_timeout{5000};
  int line = 0;  // of the file, where it begins
  int column = 0;

  bool operator==(const Rule&) const = default;
};

struct Policy {
  std::string application;
  std::vector<std::string> program;                      // absolute paths; empty: any
  std::vector<std::string> users;                        // names or numbers; empty: any
  uint64_t serial = 0;                                   // 0: none
  std::optional<std::chrono::year_month_day> not_after;  // the last day it holds, UTC
  std::vector<Rule> rules;
  Action otherwise = Action::kSystem;     // kSystem or kDiscard
  std::vector<std::string> drop_preload;  // absolute paths: what may be started without the shim
  bool deny_io_uring = false;             // the launcher has the kernel refuse it
  // Of a program's own request for one socket (request.h): its text, and the policy that it is held
  // to. Null for a policy.
  std::shared_ptr<const Policy> floor;
  std::string request;

  bool operator==(const Policy&) const = default;
};

// Returns what the rule's protection accepts.
inline AlgorithmSet AcceptedBy(const Rule& rule) {
  return rule.algorithms ? *rule.algorithms : Accepted(rule.protection);
}

// True when the rule speaks of this flow. An endpoint whose address is kNone or whose port is 0
// (not known yet) matches only rules that do not ask about it.
bool Matches(const Rule& rule, const Flow& flow);

// Returns the first rule that matches, or nothing: then `otherwise` holds. Of a flow of kBoth,
// which is datagrams of a socket without a connection, whoever began: the first rule that covers it
// as an incoming one, and where none does the first that covers it as an outgoing one. But what
// lets incoming ones pass in clear gives way to an outgoing one that bars it, unless it is a
// server's (NamesServer): what it lets in it would let out as well, whoever began.
const Rule* FirstMatch(const Policy& policy, const Flow& flow);

// True when the rule is about incoming flows alone and says of which local ports: whoever is
// answered from there was let in by it.
bool NamesServer(const Rule& rule);

}  // namespace latchkey::policy

#endif  // POLICY_POLICY_H_
