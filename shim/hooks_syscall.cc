// syscall(): what programs call by number goes the same way as by name; all else straight through.

#include <stdarg.h>
#include <sys/syscall.h>

#include "shim/hooks.h"
#include "shim/real.h"

namespace latchkey::shim {
namespace {

template <typename T>
T* As(long value) {
  return reinterpret_cast<T*>(value);
}

}  // namespace

long HookSyscall(long number, ...) LATCHKEY_HOOK(syscall);
long HookSyscall(long number, ...) {
  va_list arguments;
  va_start(arguments, number);
  long a[6];
  for (long& value : a) value = va_arg(arguments, long);
  va_end(arguments);
  const int fd = static_cast<int>(a[0]);
  switch (number) {
    case SYS_connect:
      return HookConnect(fd, As<const sockaddr>(a[1]), static_cast<socklen_t>(a[2]));
    case SYS_bind:
      return HookBind(fd, As<const sockaddr>(a[1]), static_cast<socklen_t>(a[2]));
    case SYS_listen:
      return HookListen(fd, static_cast<int>(a[1]));
    case SYS_accept:
      return HookAccept(fd, As<sockaddr>(a[1]), As<socklen_t>(a[2]));
    case SYS_accept4:
      return HookAccept4(fd, As<sockaddr>(a[1]), As<socklen_t>(a[2]), static_cast<int>(a[3]));
    case SYS_setsockopt:
      return HookSetsockopt(fd, static_cast<int>(a[1]), static_cast<int>(a[2]), As<void>(a[3]),
                            static_cast<socklen_t>(a[4]));
    case SYS_getsockopt:
      return HookGetsockopt(fd, static_cast<int>(a[1]), static_cast<int>(a[2]), As<void>(a[3]),
                            As<socklen_t>(a[4]));
    case SYS_sendto:
      return HookSendto(fd, As<void>(a[1]), static_cast<size_t>(a[2]), static_cast<int>(a[3]),
                        As<const sockaddr>(a[4]), static_cast<socklen_t>(a[5]));
    case SYS_sendmsg:
      return HookSendmsg(fd, As<const msghdr>(a[1]), static_cast<int>(a[2]));
    case SYS_sendmmsg:
      return HookSendmmsg(fd, As<mmsghdr>(a[1]), static_cast<unsigned>(a[2]),
                          static_cast<int>(a[3]));
    case SYS_recvfrom:
      return HookRecvfrom(fd, As<void>(a[1]), static_cast<size_t>(a[2]), static_cast<int>(a[3]),
                          As<sockaddr>(a[4]), As<socklen_t>(a[5]));
    case SYS_recvmsg:
      return HookRecvmsg(fd, As<msghdr>(a[1]), static_cast<int>(a[2]));
    case SYS_recvmmsg:
      return HookRecvmmsg(fd, As<mmsghdr>(a[1]), static_cast<unsigned>(a[2]),
                          static_cast<int>(a[3]), As<timespec>(a[4]));
    case SYS_read:
      return HookRead(fd, As<void>(a[1]), static_cast<size_t>(a[2]));
    case SYS_write:
      return HookWrite(fd, As<void>(a[1]), static_cast<size_t>(a[2]));
    case SYS_readv:
      return HookReadv(fd, As<const iovec>(a[1]), static_cast<int>(a[2]));
    case SYS_writev:
      return HookWritev(fd, As<const iovec>(a[1]), static_cast<int>(a[2]));
    case SYS_socket:
      return HookSocket(static_cast<int>(a[0]), static_cast<int>(a[1]), static_cast<int>(a[2]));
    case SYS_unshare:
      return HookUnshare(static_cast<int>(a[0]));
    case SYS_chroot:
      return HookChroot(As<const char>(a[0]));
    case SYS_close:
      return HookClose(fd);
    case SYS_close_range:
      return HookCloseRange(static_cast<unsigned>(a[0]), static_cast<unsigned>(a[1]),
                            static_cast<int>(a[2]));
    case SYS_execve:
      return HookExecve(As<const char>(a[0]), As<char* const>(a[1]), As<char* const>(a[2]));
    case SYS_execveat:
      return HookExecveat(fd, As<const char>(a[1]), As<char* const>(a[2]), As<char* const>(a[3]),
                          static_cast<int>(a[4]));
    case SYS_dup2:
      return HookDup2(fd, static_cast<int>(a[1]));
    case SYS_dup3:
      return HookDup3(fd, static_cast<int>(a[1]), static_cast<int>(a[2]));
    default:
      return Libc(wire::RawSyscall(number, a[0], a[1], a[2], a[3], a[4], a[5]));
  }
}

}  // namespace latchkey::shim
