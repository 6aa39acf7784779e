#include "shim/real.h"

#include <dlfcn.h>

#include <catch2/catch.hpp>

namespace latchkey::shim {
namespace {

void* InLibc(const char* name) { return dlsym(dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD), name); }

TEST_CASE("behind ours are libc's functions, and it is seen that they are") {
  CHECK_FALSE(libc_is_next);
  ResolveReal();
#define X(name, result, parameters) \
  INFO(#name);                      \
  CHECK(reinterpret_cast<void*>(real.name) == InLibc(#name));
#include "shim/hooks.def"
#undef X
  CHECK(libc_is_next);
}

}  // namespace
}  // namespace latchkey::shim
