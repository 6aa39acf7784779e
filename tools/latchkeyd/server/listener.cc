#include "tools/latchkeyd/server/listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace latchkey::broker {
namespace {

constexpr int kFirstHandedOver = 3;  // SD_LISTEN_FDS_START

bool Address(const std::string& path, sockaddr_un& address, socklen_t& length) {
  address = sockaddr_un{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  if (address.sun_path[0] == '@') {
    address.sun_path[0] = '\0';
    --length;
  }
  return true;
}

// Set on the listener too: kernels from 6.16 on let connections inherit it, so that no message
// comes without its sender.
bool PassCredentials(int fd) {
  const int on = 1;
  return setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0;
}

// Makes way for our socket at `path`: takes away one that nobody listens on any more.
Result<void> RemoveStale(const std::string& path, const sockaddr_un& address, socklen_t length) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) {
    return Fail(Reason::kKernelRefused, "make socket", path + ": is there, and is no socket");
  }
  const UniqueFd probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  // EAGAIN: somebody listens, and has no time.
  if (probe && (connect(probe.get(), name, length) == 0 || errno == EAGAIN)) {
    return Fail(Reason::kKernelRefused, "make socket", path + ": another latchkeyd serves it");
  }
  if (unlink(path.c_str()) != 0) {
    return Fail(Reason::kKernelRefused, "remove old socket", path + ": " + strerror(errno));
  }
  return {};
}

bool HandedOver() {
  const char* count = getenv("LISTEN_FDS");
  const char* pid = getenv("LISTEN_PID");
  return count != nullptr && pid != nullptr && std::strcmp(count, "1") == 0 &&
         std::to_string(getpid()) == pid;
}

}  // namespace

Result<UniqueFd> OpenListener(const std::string& path, bool* handed_over) {
  *handed_over = HandedOver();
  if (*handed_over) {
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    UniqueFd socket_fd(kFirstHandedOver);
    int type = 0;
    socklen_t length = sizeof(type);
    if (getsockopt(socket_fd.get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 ||
        type != SOCK_SEQPACKET) {
      return Fail(Reason::kKernelRefused, "take socket", "not a SOCK_SEQPACKET socket");
    }
    if (!PassCredentials(socket_fd.get())) {
      return Fail(Reason::kKernelRefused, "take socket", strerror(errno));
    }
    fcntl(socket_fd.get(), F_SETFD, FD_CLOEXEC);
    fcntl(socket_fd.get(), F_SETFL, fcntl(socket_fd.get(), F_GETFL) | O_NONBLOCK);
    return socket_fd;
  }
  const auto failed = [&](const char* step) {
    return Fail(Reason::kKernelRefused, step, path + ": " + strerror(errno));
  };
  sockaddr_un address;
  socklen_t length = 0;
  if (!Address(path, address, length)) {
    return Fail(Reason::kKernelRefused, "open socket", path + ": too long a path");
  }
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_fd) return failed("open socket");
  if (!PassCredentials(socket_fd.get())) return failed("set SO_PASSCRED");
  if (address.sun_path[0] != '\0') {
    if (Result<void> gone = RemoveStale(path, address, length); !gone) {
      return std::unexpected(gone.error());
    }
  }
  if (bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
    return failed("bind socket");
  }
  if (address.sun_path[0] != '\0' && chmod(path.c_str(), 0666) != 0) return failed("chmod socket");
  if (listen(socket_fd.get(), SOMAXCONN) != 0) return failed("listen");
  return socket_fd;
}

UniqueFd AcceptConnection(int listener) {
  UniqueFd connection(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (connection && !PassCredentials(connection.get())) connection.Reset();
  return connection;
}

void Notify(const std::string& state) {
  const char* path = getenv("NOTIFY_SOCKET");
  sockaddr_un address;
  socklen_t length = 0;
  if (path == nullptr || !Address(path, address, length)) return;
  const UniqueFd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) return;
  (void)sendto(socket_fd.get(), state.data(), state.size(), MSG_NOSIGNAL,
               reinterpret_cast<sockaddr*>(&address), length);
}

}  // namespace latchkey::broker
