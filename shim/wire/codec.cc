#include "shim/wire/codec.h"

#include <sys/socket.h>
#include <sys/syscall.h>

#include "shim/wire/raw_syscall.h"

namespace latchkey::wire {
namespace {

constexpr size_t kControl = CMSG_SPACE(sizeof(int) * kMaxDescriptors) + CMSG_SPACE(sizeof(ucred));

// No memcpy: a compiler may call one that is interposed by somebody.
template <typename T>
T Load(const unsigned char* from) {
  T value{};
  auto* to = reinterpret_cast<unsigned char*>(&value);
  for (size_t i = 0; i < sizeof(T); ++i) to[i] = from[i];
  return value;
}

// Takes descriptors and credentials out of the control data; false for anything unexpected. All
// descriptors it meets are kept or closed, never lost.
bool ReadControl(msghdr& message, Received& received) {
  bool good = true;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): the kernel filled it in
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_len < CMSG_LEN(0)) {
      good = false;
      continue;
    }
    const size_t octets = part->cmsg_len - CMSG_LEN(0);
    const unsigned char* data = CMSG_DATA(part);
    if (part->cmsg_type == SCM_CREDENTIALS && octets == sizeof(ucred)) {
      const ucred credentials = Load<ucred>(data);
      received.has_credentials = true;
      received.pid = credentials.pid;
      received.uid = credentials.uid;
      received.gid = credentials.gid;
    } else if (part->cmsg_type == SCM_RIGHTS && octets % sizeof(int) == 0) {
      for (size_t i = 0; i < octets / sizeof(int); ++i) {
        const int fd = Load<int>(data + i * sizeof(int));
        if (received.descriptor_count < kMaxDescriptors) {
          received.descriptors[received.descriptor_count++] = fd;
        } else {
          RawSyscall(SYS_close, fd);
          good = false;
        }
      }
    } else {
      good = false;
    }
  }
  return good;
}

}  // namespace

int SendMessage(int socket, const void* message, uint32_t size, const int* descriptors, int count,
                bool wait) {
  if (count < 0 || count > kMaxDescriptors) return EINVAL;
  alignas(cmsghdr) unsigned char control[kControl] = {};
  iovec part{const_cast<void*>(message), size};  // sendmsg only reads it
  msghdr out{};
  out.msg_iov = &part;
  out.msg_iovlen = 1;
  if (count > 0) {
    out.msg_control = control;
    out.msg_controllen = CMSG_SPACE(sizeof(int) * static_cast<size_t>(count));
    cmsghdr* header = CMSG_FIRSTHDR(&out);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * static_cast<size_t>(count));
    int* place = reinterpret_cast<int*>(CMSG_DATA(header));
    for (int i = 0; i < count; ++i) place[i] = descriptors[i];
  }
  long result;
  do {
    result = RawSyscall(SYS_sendmsg, socket, reinterpret_cast<long>(&out),
                        MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
  } while (result == -EINTR);
  if (result < 0) return static_cast<int>(-result);
  return result == static_cast<long>(size) ? 0 : EPROTO;
}

int ReceiveMessage(int socket, Received& received, bool wait) {
  alignas(cmsghdr) unsigned char control[kControl];
  iovec part{received.octets, sizeof(received.octets)};
  msghdr in{};
  in.msg_iov = &part;
  in.msg_iovlen = 1;
  in.msg_control = control;
  in.msg_controllen = sizeof(control);
  received.descriptor_count = 0;
  received.has_credentials = false;
  const long count = RawSyscall(SYS_recvmsg, socket, reinterpret_cast<long>(&in),
                                MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  if (count < 0) return static_cast<int>(-count);
  const bool control_good = ReadControl(in, received);
  if (count == 0 && received.descriptor_count == 0) return EPIPE;
  received.size = static_cast<uint32_t>(count);
  const bool whole =
      control_good && (in.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && IsWhole(received);
  if (whole) return 0;
  CloseDescriptors(received);
  return EPROTO;
}

void CloseDescriptors(Received& received) {
  for (int i = 0; i < received.descriptor_count; ++i) {
    RawSyscall(SYS_close, received.descriptors[i]);
    received.descriptors[i] = -1;
  }
  received.descriptor_count = 0;
}

}  // namespace latchkey::wire
