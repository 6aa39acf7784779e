#include "tools/latchkey/deny_io_uring.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace latchkey::tool {
namespace {

constexpr uint32_t kX32 = 0x40000000;  // the bit in the numbers of x32's system calls

// System calls from 424 on have one number in all ABIs, so the same three serve i386 and x32.
static_assert(SYS_io_uring_setup == 425 && SYS_io_uring_enter == 426 &&
              SYS_io_uring_register == 427);

constexpr std::array<sock_filter, 10> kFilter = {{
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~kX32),
    // From setup to register: one subtraction makes one comparison of it.
    BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, SYS_io_uring_setup),
    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_io_uring_register - SYS_io_uring_setup, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
}};

}  // namespace

Result<void> DenyIoUring() {
  auto code = kFilter;  // the kernel's interface is not const
  const sock_fprog program{code.size(), code.data()};
  const auto install = [&program] {
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
  };
  if (install()) return {};
  if (errno == EACCES && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && install()) return {};
  return Fail(Reason::kKernelRefused, "deny io_uring", std::strerror(errno));
}

}  // namespace latchkey::tool
