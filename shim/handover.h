// What the environment of a program that this one starts must hold, for it to belong to the session
// as well: the shim in LD_PRELOAD, and the variables that say where the broker is and whose session
// this is. Async-signal-safe, no allocation, nothing of the program's is written: it serves the
// children of vfork() too.
#ifndef SHIM_HANDOVER_H_
#define SHIM_HANDOVER_H_

#include <cstddef>

namespace latchkey::shim {

// Says what to hand over, once, by the constructor. `library`: absolute, as LD_PRELOAD names it;
// the others null where this program was given none. A token (hexadecimal) makes a policy
// needless. Until then, and with a library that LD_PRELOAD cannot name, nothing is ever missing.
void SetHandover(const char* library, const char* socket, const char* token, const char* policy);

struct Inventory {
  bool whole = true;   // nothing is missing, or it cannot be read: then the kernel says EFAULT
  bool large = false;  // too large to be completed: E2BIG
  size_t entries = 0;
  size_t size = 0;  // octets that Complete() needs
};

// Looks for what is to be handed over in the environment; null is an empty one, as to the kernel.
// A token that is none, an empty socket and two LD_PRELOADs count as missing.
Inventory TakeInventory(char* const* environment);

// Makes the environment with what was missing in `room`, which must be aligned for pointers. Of
// LD_PRELOAD everything stays but other shims of Latchkey, ours goes first. It points into
// `environment`.
char* const* Complete(char* const* environment, const Inventory& inventory, char* room);

}  // namespace latchkey::shim

#endif  // SHIM_HANDOVER_H_
