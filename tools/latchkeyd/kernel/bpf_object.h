// eBPF programs of ours and their maps in the kernel.
//
// Both live as long as something has them: a socket, a cgroup, or a pin. So that a later broker
// finds the maps again, they are pinned in a BPF file system, in a folder of their own for each
// network namespace. Loading takes CAP_BPF (for programs of cgroups CAP_NET_ADMIN too); changing a
// map that is open takes none since Linux 5.19 (before, CAP_BPF too).
#ifndef TOOLS_LATCHKEYD_KERNEL_BPF_OBJECT_H_
#define TOOLS_LATCHKEYD_KERNEL_BPF_OBJECT_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "policy/model/error.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// What to load. `object` is an ELF file as clang makes it, aligned to 8 octets.
struct BpfSource {
  std::string name;  // for messages
  std::span<const uint8_t> object;
  std::string layout;  // the name of its pins' folder, before the network namespace's number
  std::vector<std::string> programs;
  std::vector<std::string> maps;
  // Maps of another object's, by name, that the programs use in place of their own. It pins them.
  std::map<std::string, int> shared = {};
};

struct BpfObject {
  std::map<std::string, UniqueFd> programs;
  std::map<std::string, UniqueFd> maps;
  std::string pins;        // the folder the maps are pinned in; empty: they are not
  bool inherited = false;  // they were there, and may hold something
  std::string not_pinned;  // why they are not, where they were to be
};

// Loads the programs. With `base`, a folder to make in a BPF file system (which is mounted where it
// is not): over the maps that are pinned there for the caller's network namespace, if they are all
// there, of our layout, and in a folder that nobody but we can write to; else over new ones, which
// are pinned in place of what is there. Without: over new ones. kUnsupported where the kernel, or a
// missing capability, does not let us.
Result<BpfObject> LoadBpf(const BpfSource& source, const std::string& base);

// Takes the pins of these maps away; what has the programs keeps them.
void UnpinBpf(const std::vector<std::string>& maps, const std::string& pins);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_BPF_OBJECT_H_
