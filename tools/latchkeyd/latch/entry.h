// A latch with what only the broker knows of it: whose it is, by which rule, and where its socket
// was last seen.
#ifndef TOOLS_LATCHKEYD_LATCH_ENTRY_H_
#define TOOLS_LATCHKEYD_LATCH_ENTRY_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "policy/decide.h"
#include "policy/model/latch.h"
#include "policy/policy.h"
#include "tools/latchkeyd/latch/kernel_port.h"

namespace latchkey::broker {

// Who asks: the authority of one request.
struct Client {
  uint64_t session = 0;
  std::shared_ptr<const policy::Policy> policy;
  policy::Requester requester;
  int32_t pid = 0;
  std::string program;
};

struct Entry {
  Latch latch;
  uint64_t session = 0;
  std::shared_ptr<const policy::Policy> policy;
  policy::Requester requester;
  const policy::Rule* rule = nullptr;  // of *policy; null for listeners
  SocketHint hint;
  bool v6_socket = false;
  bool static_reqid = false;
  int64_t stalled_since = 0;      // NowMs() when its last SA went; 0 = it has one
  int64_t created = 0;            // NowMs()
  bool seen = false;              // its socket was once in the kernel's tables
  int64_t broken_since = 0;       // NowMs() when it broke
  bool silenced = false;          // kBroken: BLOCK set or socket aborted
  uint32_t suspect_children = 0;  // listener: queued while no broker watched; refused at accept
  std::vector<Guard> guards;      // SPD entries held for it as long as it lives
  std::vector<Guard> sa_guards;   // listener: SPD entries held for each SA it may use

  // Listener with optional peers: the cookies of children that may have begun in clear before there
  // was an SA, or that this is not known of any.
  std::set<uint64_t> clear_children;
  bool blind = false;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_ENTRY_H_
