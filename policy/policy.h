// A parsed policy: what an application asks for its flows (docs: latchkey-policy(5)).
#ifndef POLICY_POLICY_H_
#define POLICY_POLICY_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "policy/model/flow.h"
#include "policy/model/protection.h"

namespace latchkey::policy {

enum class Action : uint8_t { kProtect, kBypass, kDiscard, kSystem };

struct Rule {
  std::string name;  // "rule N" when the file gives none
  Direction direction = Direction::kBoth;
  uint8_t protocol = 0;                // 0 = any; udp is not supported yet
  std::vector<Prefix> remote;          // empty: any
  std::vector<Prefix> local;           // empty: any
  std::vector<PortRange> remote_port;  // empty: any
  std::vector<PortRange> local_port;   // empty: any
  Action action = Action::kDiscard;
  ProtectionSpec protection;  // for kProtect
  PeerSpec peer;              // for kProtect; no ids: any authenticated peer
  uint32_t reqid = 0;         // 0: found
  std::chrono::milliseconds acquire_timeout{5000};
};

struct Policy {
  std::string application;
  std::vector<std::string> program;  // absolute paths; empty: any
  std::vector<Rule> rules;
  Action otherwise = Action::kSystem;  // kSystem or kDiscard
};

// True when the rule speaks of this flow. An endpoint whose address is kNone or whose port is 0
// (not known yet) matches only rules that do not ask about it.
bool Matches(const Rule& rule, const Flow& flow);

// Returns the first rule that matches, or nothing: then `otherwise` holds.
const Rule* FirstMatch(const Policy& policy, const Flow& flow);

}  // namespace latchkey::policy

#endif  // POLICY_POLICY_H_
