// What a session's page says of latches, for FakeBroker.
#ifndef SHIM_TESTING_FAKE_LATCHES_H_
#define SHIM_TESTING_FAKE_LATCHES_H_

#include <cstdint>

#include "shim/wire/page.h"

namespace latchkey::testing {

// Says of a socket what FakeBroker::SetTold() tells; nothing at all unless `flags`, a request's,
// ask for latches. `connected`: latch 7 is its connection's.
void FillLatches(wire::Page& page, uint64_t cookie, uint32_t flags, bool connected);

}  // namespace latchkey::testing

#endif  // SHIM_TESTING_FAKE_LATCHES_H_
