#include "tools/latchkeyd/kernel/map_update.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <chrono>
#include <thread>

namespace latchkey::broker {

int TryAgain(const std::function<int()>& call) {
  for (int wait = 1; wait <= 16; wait *= 2) {
    const int done = call();
    if (done == 0 || errno != ENOMEM) return done;
    std::this_thread::sleep_for(std::chrono::milliseconds(wait));
  }
  return call();
}

int PutElement(int map, const void* key, const void* value, uint64_t flags) {
  return TryAgain([&] { return bpf_map_update_elem(map, key, value, flags); });
}

}  // namespace latchkey::broker
