// Finds the one latch of an id among the brokers of this network namespace.
#ifndef TOOLS_LATCHKEY_FIND_LATCH_H_
#define TOOLS_LATCHKEY_FIND_LATCH_H_

#include <cstdint>
#include <string>

#include "policy/model/latch.h"
#include "tools/latchkey/client.h"
#include "tools/latchkey/refusal.h"

namespace latchkey::tool {

struct FoundLatch {
  Broker broker;  // whose it is
  Latch latch;
};

// Asks the broker at `socket` ("": every one). Prints what kept it from asking some. Refuses with 3
// when none answers, 1 when none knows the latch or several do: brokers count for themselves, and
// taking either would be a guess.
Outcome<FoundLatch> FindLatch(const std::string& socket, uint64_t id);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_FIND_LATCH_H_
