#include "tools/latchkey/deny_io_uring.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <functional>

namespace latchkey::tool {
namespace {

// Returns what a child that may not use io_uring makes of `body`: its exit status, 256 + the signal
// that ended it.
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(DenyIoUring() ? body() : 99);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

int ErrnoOf(long number) { return syscall(number, -1, 0, 0, 0, 0, 0) < 0 ? errno : 0; }

TEST_CASE("io_uring is answered with ENOSYS") {
  CHECK(InChild([] { return ErrnoOf(SYS_io_uring_setup); }) == ENOSYS);
  CHECK(InChild([] { return ErrnoOf(SYS_io_uring_enter); }) == ENOSYS);
  CHECK(InChild([] { return ErrnoOf(SYS_io_uring_register); }) == ENOSYS);
}

TEST_CASE("so it is by the numbers of x32") {
  CHECK(InChild([] { return ErrnoOf(SYS_io_uring_setup | 0x40000000); }) == ENOSYS);
}

TEST_CASE("so it is by the gate of i386, whose other calls go on") {
  // close() of no descriptor, and io_uring_setup; a kernel without that ABI ends the process.
  const auto call = [](int number) {
    return InChild([number] {
      int result = number;
      __asm__ volatile("int $0x80" : "+a"(result) : "b"(-1), "c"(0), "d"(0) : "memory");
      return -result;
    });
  };
  const int other = call(6);
  CHECK((other == EBADF || other >= 256));
  if (other == EBADF) CHECK(call(425) == ENOSYS);
}

TEST_CASE("the calls next to it, and all others, are as before") {
  CHECK(InChild([] { return ErrnoOf(SYS_pidfd_send_signal); }) == EBADF);  // 424
  CHECK(InChild([] { return ErrnoOf(SYS_open_tree); }) == EFAULT);         // 428
  CHECK(InChild([] { return ErrnoOf(SYS_close); }) == EBADF);
}

TEST_CASE("children inherit it") {
  CHECK(InChild([] {
          const pid_t child = fork();
          if (child == 0) _exit(ErrnoOf(SYS_io_uring_setup));
          int status = 0;
          waitpid(child, &status, 0);
          return WEXITSTATUS(status);
        }) == ENOSYS);
}

TEST_CASE("without privileges it takes no_new_privs") {
  const pid_t child = fork();
  if (child == 0) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const std::array<__user_cap_data_struct, 2> none{};
    if (syscall(SYS_capset, &header, none.data()) != 0) _exit(98);
    const bool denied = DenyIoUring() && ErrnoOf(SYS_io_uring_setup) == ENOSYS;
    _exit(denied && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace latchkey::tool
