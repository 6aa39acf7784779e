// What a broker does to an unconnected UDP socket that it holds, as far as its program can tell:
// the mark, a filter that cannot be taken off, and a place that nothing is sent to.
#ifndef SHIM_TESTING_HOLD_H_
#define SHIM_TESTING_HOLD_H_

#include <cstdint>

namespace latchkey::testing {

enum class Want {
  kNothing,
  kEntry,  // it is blocked: EPERM
  kKeys,   // it is let through under an SA that there is not: EAGAIN
};

// Holds `fd` (needs CAP_NET_ADMIN); what it sends to 127.0.0.1 and `port` wants something.
void HoldSocket(int fd, uint32_t mark, uint16_t port, Want want);
// From now on nothing is wanting.
void LetThrough(int fd);

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_HOLD_H_
