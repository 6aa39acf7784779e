#include "tools/latchkey/exchange.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace latchkey::tool {
namespace {

std::string ErrorText(const char* step) {
  if (errno == EAGAIN) return std::string(step) + ": the broker does not answer";
  return std::string(step) + ": " + std::strerror(errno);
}

// Receives one message of `type` with this serial; returns "", else what failed, and in `error` the
// errno when it was recvmsg.
std::string Receive(int fd, uint32_t serial, wire::Type type, std::span<std::byte> into, int flags,
                    int& error) {
  // Larger than any message: MSG_TRUNC and a wrong size are told apart from a whole answer. No room
  // for descriptors: the kernel drops any that come.
  std::array<std::byte, wire::kMaxMessage> answer;
  iovec in{answer.data(), answer.size()};
  msghdr message{};
  message.msg_iov = &in;
  message.msg_iovlen = 1;
  ssize_t count;
  do {
    count = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags);
  } while (count < 0 && errno == EINTR);
  error = count < 0 ? errno : 0;
  if (count < 0) return ErrorText("waiting for the broker");
  if (count == 0) return "the broker closed the connection";

  wire::Header got;
  if (static_cast<size_t>(count) < sizeof(got)) return "the broker's answer is damaged";
  std::memcpy(&got, answer.data(), sizeof(got));
  if (got.magic != wire::kMagic) return "the broker's answer is damaged";
  if (got.version != wire::kVersion) return "the broker is of another version";
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || got.type != type ||
      got.size != into.size() || static_cast<size_t>(count) != into.size() ||
      got.serial != serial) {
    return "the broker's answer is damaged";
  }
  std::memcpy(into.data(), answer.data(), into.size());
  return {};
}

}  // namespace

std::string ExchangeOctets(int fd, std::span<const std::byte> request,
                           std::span<const int> descriptors, wire::Type type,
                           std::span<std::byte> reply) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * wire::kMaxDescriptors)> control{};
  if (descriptors.size() > wire::kMaxDescriptors) return "too many descriptors";
  // sendmsg does not write to what it sends.
  iovec out{const_cast<std::byte*>(request.data()), request.size()};
  msghdr message{};
  message.msg_iov = &out;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t count;
  do {
    count = sendmsg(fd, &message, MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return ErrorText("asking the broker");

  wire::Header asked;
  std::memcpy(&asked, request.data(), sizeof(asked));
  int error = 0;
  return Receive(fd, asked.serial, type, reply, 0, error);
}

std::expected<bool, std::string> ReceiveOctets(int fd, uint32_t serial, wire::Type type,
                                               std::span<std::byte> message) {
  int error = 0;
  const std::string why = Receive(fd, serial, type, message, MSG_DONTWAIT, error);
  if (error == EAGAIN) return false;
  if (!why.empty()) return std::unexpected(why);
  return true;
}

}  // namespace latchkey::tool
