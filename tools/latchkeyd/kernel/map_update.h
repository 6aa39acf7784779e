// Changes to maps of eBPF that find no memory, and are tried again.
//
// What a map of BPF_F_NO_PREALLOC grows by it takes from a list of each processor, which holds some
// hundred elements and is filled up by an interrupt of the kernel's own (bpf_mem_alloc); where that
// comes with the clock's ticks alone, as in user-mode-linux, some 100 entries in a row find it
// empty though there is memory enough.
#ifndef TOOLS_LATCHKEYD_KERNEL_MAP_UPDATE_H_
#define TOOLS_LATCHKEYD_KERNEL_MAP_UPDATE_H_

#include <cstdint>
#include <functional>

namespace latchkey::broker {

// Makes a call that is 0 or leaves its errno; up to five times more while that is ENOMEM, after 1,
// 2, 4, 8 and 16 ms: three ticks of a slow clock. Returns what the last one did.
int TryAgain(const std::function<int()>& call);

// bpf_map_update_elem(), so. 0, or errno says why not.
int PutElement(int map, const void* key, const void* value, uint64_t flags = 0);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_MAP_UPDATE_H_
