// What a broker tells those who watch it: a latch that was made, changed its state, or stalls.
#ifndef TOOLS_LATCHKEY_EVENT_H_
#define TOOLS_LATCHKEY_EVENT_H_

#include <cstdint>
#include <optional>

#include "policy/model/latch.h"
#include "shim/wire/messages.h"

namespace latchkey::tool {

struct Event {
  enum class What : uint8_t {
    kState,  // made, or changed its state
    kStall,  // lost its last SA; what follows leave its state as it is
    kMove,   // has one again
  };
  uint64_t time = 0;  // seconds since 1970
  What what = What::kState;
  State from = State::kLarval;  // kState: the same as the latch's when it was just made
  Latch latch;                  // as it is now, its direction too

  // True for a latch that was just made.
  bool IsNew() const { return what == What::kState && from == latch.state; }
};

// A record that is damaged gives nothing.
std::optional<Event> EventFromWire(const wire::EventRecord& record);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_EVENT_H_
