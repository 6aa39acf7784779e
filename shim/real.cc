#include "shim/real.h"

#include <dlfcn.h>

namespace latchkey::shim {

Real real;
std::atomic<bool> libc_is_next;

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
  const void* libc = dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
  Dl_info of_libc{};
  if (libc == nullptr || dladdr(libc, &of_libc) == 0) return;
  const auto of_it = [&of_libc](auto* function) {
    Dl_info info{};
    return function != nullptr && dladdr(reinterpret_cast<const void*>(function), &info) != 0 &&
           info.dli_fbase == of_libc.dli_fbase;
  };
  libc_is_next.store(of_it(real.read) && of_it(real.readv) && of_it(real.recv) &&
                         of_it(real.recvfrom) && of_it(real.recvmsg) && of_it(real.recvmmsg) &&
                         of_it(real.send) && of_it(real.sendto) && of_it(real.sendmsg) &&
                         of_it(real.sendmmsg) && of_it(real.write) && of_it(real.writev) &&
                         of_it(real.sendfile) && of_it(real.splice),
                     std::memory_order_relaxed);
}

}  // namespace latchkey::shim
