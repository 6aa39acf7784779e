// The calls that `connect` times: libc's own, those that a program gets by name, and libc's behind
// a function that does nothing.
#ifndef TESTS_BENCH_CALLS_H_
#define TESTS_BENCH_CALLS_H_

#include <dlfcn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace latchkey::bench {

// libc's own functions, past whatever was preloaded.
struct Libc {
  decltype(&::connect) connect;
  decltype(&::close) close;
  decltype(&::dup) dup;
  decltype(&::send) send;
  decltype(&::recv) recv;
  decltype(&::sendto) sendto;
  decltype(&::accept) accept;
  decltype(&::bind) bind;
  decltype(&::close_range) close_range;
};

template <typename Function>
void Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    std::fprintf(stderr, "%s: not in libc\n", name);
    std::exit(1);
  }
}

inline Libc LoadLibc() {
  void* library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  Libc libc{};
  Find(library, "connect", libc.connect);
  Find(library, "close", libc.close);
  Find(library, "dup", libc.dup);
  Find(library, "send", libc.send);
  Find(library, "recv", libc.recv);
  Find(library, "sendto", libc.sendto);
  Find(library, "accept", libc.accept);
  Find(library, "bind", libc.bind);
  Find(library, "close_range", libc.close_range);
  return libc;
}

inline const Libc kBare = LoadLibc();
// What a call by name reaches: the shim's, when there is one.
inline const Libc kSeen = {::connect, ::close,  ::dup,  ::send,       ::recv,
                           ::sendto,  ::accept, ::bind, ::close_range};

// What any function between a program and libc costs, whatever it does: one that does nothing.
template <auto Member>
struct Wrapper;
template <typename Result, bool kNoexcept, typename... Arguments,
          Result (*Libc::*Member)(Arguments...) noexcept(kNoexcept)>
struct Wrapper<Member> {
  __attribute__((noinline)) static Result Call(Arguments... arguments) noexcept(kNoexcept) {
    Result result = (kBare.*Member)(arguments...);
    __asm__ volatile("" : "+r"(result));  // no tail call
    return result;
  }
};

inline const Libc kWrapped = {
    Wrapper<&Libc::connect>::Call, Wrapper<&Libc::close>::Call, Wrapper<&Libc::dup>::Call,
    Wrapper<&Libc::send>::Call,    Wrapper<&Libc::recv>::Call,  Wrapper<&Libc::sendto>::Call,
    Wrapper<&Libc::accept>::Call,  Wrapper<&Libc::bind>::Call,  Wrapper<&Libc::close_range>::Call};

}  // namespace latchkey::bench

#endif  // TESTS_BENCH_CALLS_H_
