#include "tools/latchkeyd/keymgr/vici/connection.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace latchkey::broker::vici {
namespace {

constexpr size_t kHeader = 4;
// A turn's worth: other descriptors must have theirs.
constexpr size_t kMostPerTurn = 1 << 18;
// Requests are short: more than this waits only where charon reads nothing.
constexpr size_t kMostWaiting = 1 << 20;

std::unexpected<Error> Lost(const char* step, const std::string& why) {
  return Fail(Reason::kKmLost, step, why);
}

}  // namespace

Connection::Connection(UniqueFd fd) : fd_(std::move(fd)) {
  if (const int flags = fcntl(fd_.get(), F_GETFL); flags >= 0) {
    fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
  }
}

Result<Connection> Connection::Open(const std::string& path, int& error) {
  const std::string step = "connect to " + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  error = ENAMETOOLONG;
  if (path.size() >= sizeof(address.sun_path)) return Lost(step.c_str(), std::strerror(error));
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    error = errno;
    return Lost(step.c_str(), std::strerror(error));
  }
  error = 0;
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    error = errno;
  }
  if (error != 0 && error != EINPROGRESS) return Lost(step.c_str(), std::strerror(error));
  Connection connection(std::move(fd));
  connection.connecting_ = error == EINPROGRESS;
  error = 0;
  return connection;
}

Result<void> Connection::Send(const Packet& packet) {
  Result<std::string> octets = EncodePacket(packet);
  if (!octets) return std::unexpected(octets.error());
  if (out_.size() > kMostWaiting) return Lost("write to VICI", "charon does not read");
  const auto length = static_cast<uint32_t>(octets->size());
  for (int shift = 24; shift >= 0; shift -= 8) out_ += static_cast<char>(length >> shift & 0xff);
  out_ += *octets;
  return connecting_ ? Result<void>{} : Flush();
}

Result<void> Connection::OnWritable() {
  if (connecting_) {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return Lost("connect to VICI", std::strerror(error));
    connecting_ = false;
  }
  return Flush();
}

Result<void> Connection::Flush() {
  while (!out_.empty()) {
    const ssize_t sent = send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return {};
    if (sent < 0) return Lost("write to VICI", std::strerror(errno));
    out_.erase(0, static_cast<size_t>(sent));
  }
  return {};
}

Result<std::vector<Packet>> Connection::OnReadable() {
  std::vector<Packet> packets;
  char buffer[16384];
  for (size_t total = 0; total < kMostPerTurn;) {
    const ssize_t count = recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count <= 0) {
      // What came before the end is told first; the end is still there the next time.
      if (!packets.empty()) break;
      return Lost("read from VICI", count == 0 ? "charon closed it" : std::strerror(errno));
    }
    in_.append(buffer, static_cast<size_t>(count));
    total += static_cast<size_t>(count);
    if (Result<void> split = Split(packets); !split) return std::unexpected(split.error());
  }
  return packets;
}

Result<void> Connection::Split(std::vector<Packet>& packets) {
  size_t done = 0;
  while (in_.size() - done >= kHeader) {
    size_t length = 0;
    for (size_t i = 0; i < kHeader; ++i) {
      length = length << 8 | static_cast<unsigned char>(in_[done + i]);
    }
    if (length > kMaxPacket) {
      return Lost("read from VICI", "a packet of " + std::to_string(length) + " octets");
    }
    if (in_.size() - done - kHeader < length) break;
    Result<Packet> packet = DecodePacket(std::string_view(in_).substr(done + kHeader, length));
    if (!packet) return std::unexpected(packet.error());
    packets.push_back(std::move(*packet));
    done += kHeader + length;
  }
  in_.erase(0, done);
  return {};
}

}  // namespace latchkey::broker::vici
