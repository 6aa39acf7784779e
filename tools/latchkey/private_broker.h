// The private broker: a latchkeyd of one launcher, where none serves the host.
#ifndef TOOLS_LATCHKEY_PRIVATE_BROKER_H_
#define TOOLS_LATCHKEY_PRIVATE_BROKER_H_

#include <string>

#include "tools/latchkey/client.h"
#include "tools/latchkey/refusal.h"

namespace latchkey::tool {

struct PrivateBroker {
  std::string socket;
  Client client;
};

// Starts latchkeyd as a daemon of its own session, neither a child of this process (which becomes
// the program) nor holding any of its descriptors or environment, and waits up to 10 s until it
// answers. Its log is /run/latchkey/private/PID/log. It ends by itself with its last session and
// latch. Refuses with 125 and the last line of its log when it does not come up.
Outcome<PrivateBroker> StartPrivateBroker();

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_PRIVATE_BROKER_H_
