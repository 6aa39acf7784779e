#include "shim/readable.h"

#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <memory>
#include <thread>
#include <vector>

namespace latchkey::shim {
namespace {

constexpr size_t kPage = 4096;

// Two pages of which only the first can be read.
struct HalfReadable {
  HalfReadable() {
    start =
        static_cast<char*>(mmap(nullptr, 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(mprotect(start, kPage, PROT_READ) == 0);
  }
  ~HalfReadable() { munmap(start, 2 * kPage); }
  char* start = nullptr;
};

__attribute__((noinline)) bool FromDeepDown(const void* data, size_t size, int depth) {
  volatile char room[3000];
  room[0] = static_cast<char>(depth);
  const bool found = depth == 0 ? IsReadable(data, size) : FromDeepDown(data, size, depth - 1);
  return found && room[0] == static_cast<char>(depth);
}

void CheckEverywhere() {
  char local[128] = {};
  CHECK(IsReadable(local, sizeof(local)));
  CHECK(FromDeepDown(local, sizeof(local), 20));
  const auto heap = std::make_unique<std::vector<char>>(100'000);
  CHECK(IsReadable(heap->data(), 128));
  static const char constant[16] = {};
  CHECK(IsReadable(constant, sizeof(constant)));
  const HalfReadable half;
  CHECK(IsReadable(half.start, kPage));
  CHECK(IsReadable(half.start + kPage - 16, 16));
  CHECK_FALSE(IsReadable(half.start + kPage - 15, 16));
  CHECK_FALSE(IsReadable(half.start + kPage, 1));
  for (const uintptr_t bad : {uintptr_t{0}, uintptr_t{1}, uintptr_t{8}, UINTPTR_MAX,
                              UINTPTR_MAX - 15, uintptr_t{1} << 63, uintptr_t{1} << 48}) {
    CHECK_FALSE(IsReadable(reinterpret_cast<const void*>(bad), 16));
    CHECK_FALSE(FromDeepDown(reinterpret_cast<const void*>(bad), 16, 20));
  }
}

TEST_CASE("What can be read, and what cannot, seen from the main thread") { CheckEverywhere(); }

TEST_CASE("What can be read, and what cannot, seen from another thread's stack") {
  std::thread(CheckEverywhere).join();
}

}  // namespace
}  // namespace latchkey::shim
