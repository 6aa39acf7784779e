// The eBPF program of datagram_program.bpf.c and its maps in the kernel.
//
// Both live as long as a socket has the filter. So that a later broker finds the maps again, they
// are pinned in a BPF file system, in a folder of their own for each network namespace. Loading
// takes CAP_BPF; changing a map that is open takes none since Linux 5.19 (before, CAP_BPF too).
#ifndef TOOLS_LATCHKEYD_KERNEL_DATAGRAM_MAPS_H_
#define TOOLS_LATCHKEYD_KERNEL_DATAGRAM_MAPS_H_

#include <string>

#include "policy/model/error.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

struct DatagramMaps {
  UniqueFd program;
  UniqueFd settings;
  UniqueFd held;
  UniqueFd admitted;
  UniqueFd slots;
  UniqueFd exact;
  UniqueFd regions;
  UniqueFd dropped;
  UniqueFd noted;
  std::string pins;        // the folder they are pinned in; empty: they are not
  bool inherited = false;  // they were there, and may hold something
  std::string not_pinned;  // why they are not, where they were to be
};

// Loads the program. With `base`, a folder to make in a BPF file system (which is mounted where it
// is not): over the maps that are pinned there for the caller's network namespace, if they are all
// there, of our layout, and in a folder that nobody but we can write to; else over new ones, which
// are pinned in place of what is there. Without: over new ones. kUnsupported where the kernel, or a
// missing capability, does not let us.
Result<DatagramMaps> LoadDatagramMaps(const std::string& base);

// Takes the pins away; sockets that have the filter keep it.
void UnpinDatagramMaps(const std::string& pins);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_DATAGRAM_MAPS_H_
