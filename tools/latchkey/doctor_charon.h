// What `latchkey doctor` asks charon over its VICI socket.
#ifndef TOOLS_LATCHKEY_DOCTOR_CHARON_H_
#define TOOLS_LATCHKEY_DOCTOR_CHARON_H_

#include <chrono>

#include "tools/latchkey/doctor_keys.h"

namespace latchkey::tool {

// Fills in charon's children, shunts left out, each with the reqids of its SAs. Where charon does
// not say all of it in time, `facts` stays as it is.
void ListChildren(KeyManagerFacts& facts,
                  std::chrono::milliseconds patience = std::chrono::seconds(3));

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_CHARON_H_
