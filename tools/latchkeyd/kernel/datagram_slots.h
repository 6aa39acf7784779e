// The admissions of the datagram filter, in its program's maps: all of them in a hash map, and one
// of those that share a slot in that, where the program finds it faster.
//
// A slot never has what the hash map has not, whenever the broker is killed. Errors are errno's.
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_SLOTS_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_SLOTS_H_

#include "tools/latchkeyd/kernel/datagram_layout.h"

namespace latchkey::broker {

// Descriptors of the maps, which are another's.
struct AdmissionMaps {
  int admitted = -1;
  int slots = -1;
};

// Adds an admission; false, and errno says why, when it cannot be. Without a slot it counts too.
bool PutAdmission(const AdmissionMaps& maps, const latchkey_admitted_key& key);

// Takes it away, where it is. True: nothing more comes in by it. False, and errno says why: it is
// where it was.
[[nodiscard]] bool EraseAdmission(const AdmissionMaps& maps, const latchkey_admitted_key& key);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_SLOTS_H_
