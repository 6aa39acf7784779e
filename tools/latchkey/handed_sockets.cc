#include "tools/latchkey/handed_sockets.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>

namespace latchkey::tool {
namespace {

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};

bool StaysOpen(int fd) {
  const int flags = fcntl(fd, F_GETFD);
  return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

bool IsInet(int fd) {
  int domain = 0;
  socklen_t size = sizeof(domain);
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
         (domain == AF_INET || domain == AF_INET6);
}

}  // namespace

std::expected<std::vector<int>, int> HandedSockets() {
  const std::unique_ptr<DIR, CloseFolder> folder(opendir("/proc/self/fd"));
  if (folder == nullptr) return std::unexpected(errno);
  std::vector<int> found;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(folder.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    int fd = 0;
    if (std::from_chars(name.begin(), name.end(), fd).ec != std::errc()) continue;  // "." and ".."
    if (StaysOpen(fd) && IsInet(fd)) found.push_back(fd);
  }
  if (errno != 0) return std::unexpected(errno);
  std::ranges::sort(found);
  return found;
}

std::string OutsideOfFence() {
  const auto found = HandedSockets();
  if (!found) {
    return std::string("which sockets it was handed cannot be told: /proc/self/fd: ") +
           std::strerror(found.error());
  }
  if (found->empty()) return {};
  std::string text = found->size() == 1
                         ? "1 socket that it was handed is outside of the fence: descriptor"
                         : std::to_string(found->size()) +
                               " sockets that it was handed are outside of the fence: descriptors";
  for (const int fd : *found) text += (fd == found->front() ? " " : ", ") + std::to_string(fd);
  return text;
}

}  // namespace latchkey::tool
