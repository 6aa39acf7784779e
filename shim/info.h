// A latch as programs are told of it: the broker's record in the words of latchkey.h.
#ifndef SHIM_INFO_H_
#define SHIM_INFO_H_

#include <cstddef>

#include "shim/latchkey.h"
#include "shim/wire/messages.h"

namespace latchkey::shim {

// Python's socket.getsockopt() takes no more.
static_assert(sizeof(latchkey_info) <= 1024);

// Returns LATCHKEY_…: the state, but LATCHKEY_CLEAR for a latch in good order that has no peer.
int StateOf(const wire::LatchRecord& record);

// Returns LATCHKEY_RESET or LATCHKEY_SUSPEND.
int DispositionOf(const wire::LatchRecord& record);

// Returns the whole of it. A text that does not end is cut so that it does.
void FillInfo(const wire::LatchRecord& record, latchkey_info& info);

// Returns the length of a text in a field of `room` octets; `room` where it does not end.
size_t LengthWithin(const char* text, size_t room);

}  // namespace latchkey::shim

#endif  // SHIM_INFO_H_
