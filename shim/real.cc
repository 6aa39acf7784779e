#include "shim/real.h"

#include <dlfcn.h>

namespace latchkey::shim {

Real real;

void ResolveReal() {
  Dl_info self{};
  dladdr(reinterpret_cast<const void*>(&ResolveReal), &self);
  const auto find = [&self](const char* name) -> void* {
    void* found = dlsym(RTLD_NEXT, name);
    Dl_info info{};
    // A function of our own would call itself for ever.
    if (found == nullptr || dladdr(found, &info) == 0 || info.dli_fbase == self.dli_fbase) {
      return nullptr;
    }
    return found;
  };
#define X(name, result, parameters) real.name = reinterpret_cast<result(*) parameters>(find(#name));
#include "shim/hooks.def"
#undef X
}

}  // namespace latchkey::shim
