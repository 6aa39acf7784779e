#include "shim/give.h"

#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>

namespace latchkey::shim {
namespace {

TEST_CASE("What can be written is written") {
  char room[8] = "-------";
  CHECK(Give(room + 1, "abc", 3));
  CHECK(std::strcmp(room, "-abc---") == 0);
  CHECK(Give(nullptr, "abc", 0));
}

TEST_CASE("What cannot be written is told, and nothing crashes") {
  constexpr size_t kPage = 4096;
  void* const two =
      mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(two != MAP_FAILED);
  auto* const end = static_cast<char*>(two) + kPage;
  REQUIRE(mprotect(end, kPage, PROT_READ) == 0);
  CHECK_FALSE(Give(end, "abc", 3));
  CHECK_FALSE(Give(end - 1, "abc", 3));
  CHECK_FALSE(Give(nullptr, "abc", 3));
  CHECK_FALSE(Give(reinterpret_cast<void*>(UINTPTR_MAX - 1), "abc", 3));
  munmap(two, 2 * kPage);
}

}  // namespace
}  // namespace latchkey::shim
