#include "tools/latchkeyd/kernel/borrow.h"

#include <dirent.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tools/latchkeyd/kernel/socket_ops.h"

namespace latchkey::broker {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

std::optional<uint64_t> Number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The inode in "socket:[4711]"; nothing for a descriptor of another kind.
std::optional<uint64_t> SocketInode(DIR* directory, const char* name) {
  constexpr std::string_view kBegin = "socket:[";
  char target[64];
  const ssize_t length = readlinkat(dirfd(directory), name, target, sizeof(target));
  if (length <= 0) return std::nullopt;
  std::string_view text(target, static_cast<size_t>(length));
  if (!text.starts_with(kBegin) || !text.ends_with(']')) return std::nullopt;
  text.remove_prefix(kBegin.size());
  text.remove_suffix(1);
  return Number(text);
}

Directory OpenDescriptors(int pid) {
  return Directory(opendir(("/proc/" + std::to_string(pid) + "/fd").c_str()));
}

// The descriptor `number` of `pid`, if it is the socket with `cookie`.
UniqueFd Fetch(int pid, int number, uint64_t cookie) {
  if (pid <= 0 || number < 0) return UniqueFd();
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return UniqueFd();
  UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), number, 0)));
  if (!copy || CookieOf(copy.get()) != cookie) return UniqueFd();
  return copy;
}

UniqueFd FetchFrom(int pid, const SocketHint& hint) {
  const Directory directory = OpenDescriptors(pid);
  if (!directory) return UniqueFd();
  while (const dirent* entry = readdir(directory.get())) {
    const std::optional<uint64_t> number = Number(entry->d_name);
    if (!number || SocketInode(directory.get(), entry->d_name) != hint.inode) continue;
    if (UniqueFd copy = Fetch(pid, static_cast<int>(*number), hint.cookie)) return copy;
  }
  return UniqueFd();
}

bool MayTrace() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_SYS_PTRACE)].effective & CAP_TO_MASK(CAP_SYS_PTRACE)) != 0;
}

// Adds the sockets behind the descriptors of `pid`.
Result<void> AddSockets(int pid, bool may_trace, std::unordered_set<uint64_t>* inodes) {
  const Directory directory = OpenDescriptors(pid);
  if (!directory) {
    if (errno == ENOENT || errno == ESRCH) return {};  // gone meanwhile
    return Fail(Reason::kKernelRefused, "open /proc/" + std::to_string(pid) + "/fd",
                std::strerror(errno));
  }
  while (const dirent* entry = readdir(directory.get())) {
    errno = 0;
    if (const auto inode = SocketInode(directory.get(), entry->d_name)) {
      inodes->insert(*inode);
    } else if ((errno == EACCES || errno == EPERM) && !may_trace) {
      return Fail(Reason::kKernelRefused, "read /proc/" + std::to_string(pid) + "/fd",
                  "CAP_SYS_PTRACE is missing");
    }
  }
  return {};
}

}  // namespace

UniqueFd BorrowSocket(const SocketHint& hint) {
  if (hint.cookie == 0) return UniqueFd();
  if (UniqueFd copy = Fetch(hint.pid, hint.fd, hint.cookie)) return copy;
  if (hint.inode == 0) return UniqueFd();
  if (hint.pid > 0) {
    if (UniqueFd copy = FetchFrom(hint.pid, hint)) return copy;
  }
  const Directory processes(opendir("/proc"));
  if (!processes) return UniqueFd();
  while (const dirent* entry = readdir(processes.get())) {
    const std::optional<uint64_t> pid = Number(entry->d_name);
    if (!pid || static_cast<int>(*pid) == hint.pid) continue;
    if (UniqueFd copy = FetchFrom(static_cast<int>(*pid), hint)) return copy;
  }
  return UniqueFd();
}

Result<std::unordered_set<uint64_t>> ListHeldSockets() {
  const Directory processes(opendir("/proc"));
  if (!processes) return Fail(Reason::kKernelRefused, "open /proc", std::strerror(errno));
  std::unordered_set<uint64_t> inodes;
  const bool may_trace = MayTrace();
  const auto self = static_cast<uint64_t>(getpid());
  while (const dirent* entry = readdir(processes.get())) {
    const std::optional<uint64_t> pid = Number(entry->d_name);
    if (!pid || *pid == self) continue;
    Result<void> added = AddSockets(static_cast<int>(*pid), may_trace, &inodes);
    if (!added) return std::unexpected(added.error());
  }
  return inodes;
}

}  // namespace latchkey::broker
