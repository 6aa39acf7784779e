// Data calls: straight through, by libc's function or as it would (real.h). Only a call that
// failed, or met the end of the stream, looks at the session's page (trouble.h): no system call and
// no copy is added to one that moves data.

#include <netinet/in.h>
#include <sys/syscall.h>

#include <cerrno>

#include "shim/datagrams.h"
#include "shim/hooks.h"
#include "shim/latches.h"
#include "shim/latchkey.h"
#include "shim/options.h"
#include "shim/real.h"
#include "shim/trouble.h"

namespace latchkey::shim {
namespace {

constexpr unsigned kMostMessages = 1024;  // UIO_MAXIOV

ssize_t Refuse(int error) {
  errno = error;
  return -1;
}

const sockaddr* NameOf(const msghdr& message) {
  return static_cast<const sockaddr*>(message.msg_name);
}

// Apart, for what it takes of the stack.
[[gnu::noinline]] ssize_t ReceiveNamed(int fd, mmsghdr* messages, unsigned count, int flags,
                                       timespec* timeout) {
  const Rooms rooms(messages, count);
  const ssize_t result = DataCall(real.recvmmsg, SYS_recvmmsg, fd, messages, count, flags, timeout);
  if (result > 0) NameReceived(fd, messages, static_cast<unsigned>(result), rooms);
  return result;
}

// True where `count` messages may name latches, and one does.
bool AnyNamed(const mmsghdr* messages, unsigned count) {
  if (messages == nullptr) return false;
  for (unsigned i = 0; i < count; ++i) {
    if (MayName(messages[i].msg_hdr)) return true;
  }
  return false;
}

}  // namespace

int SendError(int fd, const sockaddr* to, socklen_t length, int flags) {
  if (to == nullptr) return 0;
  return FastOpenRefused(fd, to, length, flags) ? EOPNOTSUPP : BeforeSend(fd, to, length, flags);
}

ssize_t HookRead(int fd, void* data, size_t size) {
  const ssize_t result = DataCall(real.read, SYS_read, fd, data, size);
  return Checked(fd, result, size != 0);
}

ssize_t HookReadChk(int fd, void* data, size_t size, size_t room) LATCHKEY_HOOK(__read_chk);
ssize_t HookReadChk(int fd, void* data, size_t size, size_t room) {
  if (real.__read_chk == nullptr) return size > room ? Refuse(EFAULT) : HookRead(fd, data, size);
  return Checked(fd, real.__read_chk(fd, data, size, room), size != 0);
}

ssize_t HookReadv(int fd, const iovec* parts, int count) {
  const ssize_t result = DataCall(real.readv, SYS_readv, fd, parts, count);
  return Checked(fd, result, true);
}

ssize_t HookRecv(int fd, void* data, size_t size, int flags) LATCHKEY_HOOK(recv);
ssize_t HookRecv(int fd, void* data, size_t size, int flags) {
  const ssize_t result = DataCall(real.recv, SYS_recvfrom, fd, data, size, flags);
  return Checked(fd, result, size != 0);
}

ssize_t HookRecvChk(int fd, void* data, size_t size, size_t room, int flags)
    LATCHKEY_HOOK(__recv_chk);
ssize_t HookRecvChk(int fd, void* data, size_t size, size_t room, int flags) {
  if (real.__recv_chk == nullptr) {
    return size > room ? Refuse(EFAULT) : HookRecv(fd, data, size, flags);
  }
  return Checked(fd, real.__recv_chk(fd, data, size, room, flags), size != 0);
}

ssize_t HookRecvfrom(int fd, void* data, size_t size, int flags, sockaddr* from,
                     socklen_t* length) {
  const ssize_t result = DataCall(real.recvfrom, SYS_recvfrom, fd, data, size, flags, from, length);
  return Checked(fd, result, size != 0);
}

ssize_t HookRecvfromChk(int fd, void* data, size_t size, size_t room, int flags, sockaddr* from,
                        socklen_t* length) LATCHKEY_HOOK(__recvfrom_chk);
ssize_t HookRecvfromChk(int fd, void* data, size_t size, size_t room, int flags, sockaddr* from,
                        socklen_t* length) {
  if (real.__recvfrom_chk == nullptr) {
    return size > room ? Refuse(EFAULT) : HookRecvfrom(fd, data, size, flags, from, length);
  }
  return Checked(fd, real.__recvfrom_chk(fd, data, size, room, flags, from, length), size != 0);
}

ssize_t HookRecvmsg(int fd, msghdr* message, int flags) {
  const bool tells = message != nullptr && TellsLatches();
  const Room room = tells ? RoomOf(*message) : Room{};
  const ssize_t result = DataCall(real.recvmsg, SYS_recvmsg, fd, message, flags);
  if (tells && result >= 0) NameReceived(fd, *message, room);
  return Checked(fd, result, true);
}

int HookRecvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  const ssize_t result =
      messages != nullptr && TellsLatches()
          ? ReceiveNamed(fd, messages, count, flags, timeout)
          : DataCall(real.recvmmsg, SYS_recvmmsg, fd, messages, count, flags, timeout);
  // Of a UDP socket that was shut down it gets an empty one.
  if (result > 0 && messages != nullptr && messages[0].msg_len == 0 && AnyTrouble() &&
      EndedWith(fd) != 0) {
    return static_cast<int>(LookCloser(fd, 0));
  }
  return static_cast<int>(Checked(fd, result, false));
}

ssize_t HookSend(int fd, const void* data, size_t size, int flags) LATCHKEY_HOOK(send);
ssize_t HookSend(int fd, const void* data, size_t size, int flags) {
  const ssize_t result = DataCall(real.send, SYS_sendto, fd, data, size, flags);
  return CheckedSend(fd, result, flags);
}

ssize_t HookSendto(int fd, const void* data, size_t size, int flags, const sockaddr* to,
                   socklen_t length) {
  if (const int error = SendError(fd, to, length, flags); error != 0) return Refuse(error);
  ssize_t result = DataCall(real.sendto, SYS_sendto, fd, data, size, flags, to, length);
  if (MustSendAgain(result, fd, to, length, flags)) {
    result = DataCall(real.sendto, SYS_sendto, fd, data, size, flags, to, length);
  }
  return CheckedSend(fd, result, flags);
}

ssize_t SendMessageUnder(int fd, const msghdr* message, int flags, uint64_t latch) {
  const sockaddr* to = message != nullptr ? NameOf(*message) : nullptr;
  const socklen_t length = to != nullptr ? message->msg_namelen : 0;
  if (const int error = SendError(fd, to, length, flags); error != 0) return Refuse(error);
  // Asked about, it may be held now.
  if (message != nullptr && message->msg_controllen != 0) [[unlikely]] {
    if (const int error = ControlError(fd, *message); error != 0) return Refuse(error);
  }
  ssize_t result = DataCall(real.sendmsg, SYS_sendmsg, fd, message, flags);
  if (MustSendAgain(result, fd, to, length, flags)) {
    // What it may go under now may be another latch.
    const int error = latch != 0 ? SendErrorUnder(fd, latch, *message) : 0;
    if (error != 0) return Refuse(error);
    result = DataCall(real.sendmsg, SYS_sendmsg, fd, message, flags);
  }
  return CheckedSend(fd, result, flags);
}

ssize_t HookSendmsg(int fd, const msghdr* message, int flags) {
  if (message != nullptr && message->msg_controllen != 0 && MayName(*message)) {
    return SendNamed(fd, *message, flags);
  }
  return SendMessageUnder(fd, message, flags, 0);
}

ssize_t SendPlain(int fd, mmsghdr* messages, unsigned count, int flags) {
  // What precedes the first refused one is sent, as the kernel does with a failure in the middle.
  unsigned allowed = 0;
  for (; messages != nullptr && allowed < count; ++allowed) {
    const msghdr& message = messages[allowed].msg_hdr;
    int error = SendError(fd, NameOf(message), message.msg_namelen, flags);
    if (error == 0 && message.msg_controllen != 0) error = ControlError(fd, message);
    if (error == 0) continue;
    if (allowed == 0) return Refuse(error);
    break;
  }
  const unsigned number = messages == nullptr ? count : allowed;
  ssize_t result = DataCall(real.sendmmsg, SYS_sendmmsg, fd, messages, number, flags);
  // It has failed with the first; of one in the middle the next call hears.
  if (result < 0 && number > 0 && messages != nullptr) {
    const msghdr& first = messages[0].msg_hdr;
    if (MustSendAgain(result, fd, NameOf(first), first.msg_namelen, flags)) {
      result = DataCall(real.sendmmsg, SYS_sendmmsg, fd, messages, number, flags);
    }
  }
  return CheckedSend(fd, result, flags);
}

int HookSendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  const unsigned most = count < kMostMessages ? count : kMostMessages;  // the kernel's own limit
  return static_cast<int>(AnyNamed(messages, most) ? SendSome(fd, messages, most, flags)
                                                   : SendPlain(fd, messages, most, flags));
}

ssize_t HookWrite(int fd, const void* data, size_t size) {
  const ssize_t result = DataCall(real.write, SYS_write, fd, data, size);
  return CheckedSend(fd, result);
}

ssize_t HookWritev(int fd, const iovec* parts, int count) {
  const ssize_t result = DataCall(real.writev, SYS_writev, fd, parts, count);
  return CheckedSend(fd, result);
}

ssize_t HookSendfile(int to, int from, off_t* offset, size_t size) LATCHKEY_HOOK(sendfile);
ssize_t HookSendfile(int to, int from, off_t* offset, size_t size) {
  const ssize_t result = DataCall(real.sendfile, SYS_sendfile, to, from, offset, size);
  return Checked(to, result, false);
}

ssize_t HookSendfile64(int to, int from, off_t* offset, size_t size) LATCHKEY_HOOK(sendfile64);
ssize_t HookSendfile64(int to, int from, off_t* offset, size_t size) {
  return HookSendfile(to, from, offset, size);
}

ssize_t HookSplice(int from, off_t* from_offset, int to, off_t* to_offset, size_t size,
                   unsigned flags) LATCHKEY_HOOK(splice);
ssize_t HookSplice(int from, off_t* from_offset, int to, off_t* to_offset, size_t size,
                   unsigned flags) {
  const ssize_t result =
      DataCall(real.splice, SYS_splice, from, from_offset, to, to_offset, size, flags);
  if (result > 0 || size == 0) return result;
  const ssize_t read_side = Checked(from, result, true);
  return read_side == result && result < 0 ? Checked(to, result, false) : read_side;
}

int HookGetsockopt(int fd, int level, int option, void* value, socklen_t* length) {
  if (level == SOL_LATCHKEY && HasOurOptions(fd)) {
    const int error = GetOption(fd, option, value, length);
    return error == 0 ? 0 : static_cast<int>(Refuse(error));
  }
  const int result = static_cast<int>(
      real.getsockopt != nullptr ? real.getsockopt(fd, level, option, value, length)
                                 : SystemCall(SYS_getsockopt, fd, level, option, value, length));
  if (result == 0 && level == SOL_SOCKET && option == SO_RCVMARK && *length == sizeof(int) &&
      TellsLatches()) {
    // As the program set it.
    if (const Wants wants = WantsOf(fd); wants.latches) {
      *static_cast<int*>(value) = wants.marks ? 1 : 0;
    }
    return result;
  }
  const bool error_asked = result == 0 && level == SOL_SOCKET && option == SO_ERROR;
  if (!error_asked || *length != sizeof(int) || !AnyTrouble()) return result;
  const int saved = errno;
  // Each time it is asked: who asks twice must not take the second answer for a connection.
  if (const int error = EndedWith(fd); error != 0) *static_cast<int*>(value) = error;
  errno = saved;
  return result;
}

}  // namespace latchkey::shim
