#include "tools/latchkeyd/server/receive.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace latchkey::broker {
namespace {

constexpr size_t kMostAtOnce = 253;  // SCM_MAX_FD
constexpr size_t kControl = CMSG_SPACE(sizeof(int) * kMostAtOnce) + CMSG_SPACE(sizeof(ucred));

// False for control data that no message of ours has.
bool ReadControl(msghdr& message, wire::Received& received, std::vector<int>& descriptors) {
  bool good = true;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    const size_t octets = part->cmsg_len - CMSG_LEN(0);
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS &&
        octets == sizeof(ucred)) {
      ucred credentials;
      std::memcpy(&credentials, CMSG_DATA(part), sizeof(credentials));
      received.has_credentials = true;
      received.pid = credentials.pid;
      received.uid = credentials.uid;
      received.gid = credentials.gid;
    } else if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
      const size_t before = descriptors.size();
      descriptors.resize(before + octets / sizeof(int));
      std::memcpy(descriptors.data() + before, CMSG_DATA(part), octets);
    } else {
      good = false;
    }
  }
  return good;
}

}  // namespace

int ReceiveRequest(int socket, wire::Received& received, std::vector<int>& descriptors) {
  alignas(cmsghdr) unsigned char control[kControl];
  iovec part{received.octets, sizeof(received.octets)};
  msghdr in{};
  in.msg_iov = &part;
  in.msg_iovlen = 1;
  in.msg_control = control;
  in.msg_controllen = sizeof(control);
  received.descriptor_count = 0;
  received.has_credentials = false;
  const ssize_t count = recvmsg(socket, &in, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (count < 0) return errno;
  const bool control_good = ReadControl(in, received, descriptors);
  if (count == 0 && descriptors.empty()) return EPIPE;
  received.size = static_cast<uint32_t>(count);
  const bool whole = control_good && (in.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 &&
                     descriptors.size() <= wire::kMaxDescriptors && wire::IsWhole(received);
  if (!whole) return EPROTO;
  received.descriptor_count = static_cast<int>(descriptors.size());
  std::ranges::copy(descriptors, received.descriptors);
  return 0;
}

}  // namespace latchkey::broker
