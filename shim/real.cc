#include "shim/real.h"

#include <dlfcn.h>
#include <link.h>

namespace latchkey::shim {

Real real;
std::atomic<bool> libc_is_next;

namespace {

// Where a loaded object lies, by one address in it. (dladdr() says it too, but first goes through
// all of the object's symbols for the nearest: some microseconds, and pages of libc's, for each.)
struct Object {
  uintptr_t inside;
  uintptr_t begin = 0;
  uintptr_t end = 0;  // 0: none has it

  template <typename Address>
  explicit Object(Address* address) : inside(reinterpret_cast<uintptr_t>(address)) {
    dl_iterate_phdr(Look, this);
  }

  template <typename Address>
  bool Has(Address* address) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    return at >= begin && at < end;
  }

  static int Look(dl_phdr_info* info, size_t /*size*/, void* object) {
    auto* const self = static_cast<Object*>(object);
    uintptr_t begin = ~uintptr_t{0};
    uintptr_t end = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr)& part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD) continue;
      const uintptr_t first = info->dlpi_addr + part.p_vaddr;
      const uintptr_t last = first + part.p_memsz;
      begin = first < begin ? first : begin;
      end = last > end ? last : end;
    }
    if (self->inside < begin || self->inside >= end) return 0;
    self->begin = begin;
    self->end = end;
    return 1;
  }
};

}  // namespace

void ResolveReal() {
  const Object self(&ResolveReal);
  const auto find = [&self](const char* name) -> void* {
    void* found = dlsym(RTLD_NEXT, name);
    // A function of our own would call itself for ever.
    return self.Has(found) ? nullptr : found;
  };
#define X(name, result, parameters) real.name = reinterpret_cast<result(*) parameters>(find(#name));
#include "shim/hooks.def"
#undef X
  const void* version = dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
  if (version == nullptr) return;
  const Object libc(version);
  const auto of_it = [&libc](auto* function) { return libc.Has(function); };
  libc_is_next.store(of_it(real.read) && of_it(real.readv) && of_it(real.recv) &&
                         of_it(real.recvfrom) && of_it(real.recvmsg) && of_it(real.recvmmsg) &&
                         of_it(real.send) && of_it(real.sendto) && of_it(real.sendmsg) &&
                         of_it(real.sendmmsg) && of_it(real.write) && of_it(real.writev) &&
                         of_it(real.sendfile) && of_it(real.splice),
                     std::memory_order_relaxed);
}

}  // namespace latchkey::shim
