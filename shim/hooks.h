// The hooks by their private names, for the syscall() hook, and what they share.
#ifndef SHIM_HOOKS_H_
#define SHIM_HOOKS_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "shim/hook.h"

namespace latchkey::shim {

// True when a send would open a TCP connection that the broker would have to decide about first.
bool FastOpenRefused(int fd, const sockaddr* address, socklen_t length, int flags);

int HookAccept(int fd, sockaddr* address, socklen_t* length) LATCHKEY_HOOK(accept);
int HookAccept4(int fd, sockaddr* address, socklen_t* length, int flags) LATCHKEY_HOOK(accept4);
int HookBind(int fd, const sockaddr* address, socklen_t length) LATCHKEY_HOOK(bind);
int HookChroot(const char* path) LATCHKEY_HOOK(chroot);
int HookClose(int fd) LATCHKEY_HOOK(close);
int HookCloseRange(unsigned first, unsigned last, int flags) LATCHKEY_HOOK(close_range);
int HookConnect(int fd, const sockaddr* address, socklen_t length) LATCHKEY_HOOK(connect);
int HookDup2(int from, int to) LATCHKEY_HOOK(dup2);
int HookDup3(int from, int to, int flags) LATCHKEY_HOOK(dup3);
int HookExecve(const char* path, char* const* arguments, char* const* environment)
    LATCHKEY_HOOK(execve);
int HookExecveat(int folder, const char* path, char* const* arguments, char* const* environment,
                 int flags) LATCHKEY_HOOK(execveat);
int HookGetsockopt(int fd, int level, int option, void* value, socklen_t* length)
    LATCHKEY_HOOK(getsockopt);
int HookListen(int fd, int backlog) LATCHKEY_HOOK(listen);
ssize_t HookRead(int fd, void* data, size_t size) LATCHKEY_HOOK(read);
ssize_t HookReadv(int fd, const iovec* parts, int count) LATCHKEY_HOOK(readv);
ssize_t HookRecvfrom(int fd, void* data, size_t size, int flags, sockaddr* from, socklen_t* length)
    LATCHKEY_HOOK(recvfrom);
int HookRecvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout)
    LATCHKEY_HOOK(recvmmsg);
ssize_t HookRecvmsg(int fd, msghdr* message, int flags) LATCHKEY_HOOK(recvmsg);
int HookSendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) LATCHKEY_HOOK(sendmmsg);
ssize_t HookSendmsg(int fd, const msghdr* message, int flags) LATCHKEY_HOOK(sendmsg);
ssize_t HookSendto(int fd, const void* data, size_t size, int flags, const sockaddr* to,
                   socklen_t length) LATCHKEY_HOOK(sendto);
int HookSocket(int family, int type, int protocol) LATCHKEY_HOOK(socket);
int HookUnshare(int flags) LATCHKEY_HOOK(unshare);
int HookSetsockopt(int fd, int level, int option, const void* value, socklen_t length)
    LATCHKEY_HOOK(setsockopt);
ssize_t HookWrite(int fd, const void* data, size_t size) LATCHKEY_HOOK(write);
ssize_t HookWritev(int fd, const iovec* parts, int count) LATCHKEY_HOOK(writev);

}  // namespace latchkey::shim

#endif  // SHIM_HOOKS_H_
