#include "tools/latchkeyd/kernel/cgroups.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

namespace latchkey::broker {
namespace {

constexpr const char* kMounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

std::unexpected<Error> Refused(const std::string& step) {
  return Fail(Reason::kKernelRefused, step, std::strerror(errno));
}

bool IsCgroups(int fd) {
  struct statfs status {};
  return fstatfs(fd, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC;
}

UniqueFd OpenMounted() {
  for (const char* path : kMounts) {
    UniqueFd fd(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (fd && IsCgroups(fd.get()) && faccessat(fd.get(), ".", W_OK, 0) == 0) return fd;
  }
  return {};
}

UniqueFd MountUnseen() {
  const UniqueFd context(fsopen("cgroup2", FSOPEN_CLOEXEC));
  if (!context || fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return {};
  return UniqueFd(fsmount(context.get(), FSMOUNT_CLOEXEC,
                          MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
}

bool IsRootsAlone(const struct stat& status) {
  return status.st_uid == 0 && (status.st_mode & 022) == 0;
}

std::string Below(const std::string& folder, const char* name) {
  return folder.empty() ? name : folder + "/" + name;
}

const char* OrRoot(const std::string& path) { return path.empty() ? "." : path.c_str(); }

}  // namespace

Result<std::string> ReadCgroupPath(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("0::/")) continue;
    const std::string path = line.substr(4);
    if (path == ".." || path.starts_with("../") || path.ends_with(" (deleted)")) break;
    return path;
  }
  return Fail(Reason::kUnsupported, "find cgroup", "the program's cannot be reached");
}

Result<Cgroups> Cgroups::Open() {
  UniqueFd root = OpenMounted();
  if (!root) root = MountUnseen();
  if (!root)
    return Fail(Reason::kUnsupported, "open cgroups", "no cgroup file system that we may write to");
  return Cgroups(std::move(root));
}

std::string Cgroups::ParentFor(const std::string& path) const {
  std::string parent;
  for (size_t end = 0; end != std::string::npos && end < path.size();) {
    end = path.find('/', end + 1);
    const std::string folder = path.substr(0, end);
    struct stat status {};
    struct stat members {};
    if (fstatat(root_.get(), folder.c_str(), &status, 0) != 0 ||
        fstatat(root_.get(), Below(folder, "cgroup.procs").c_str(), &members, 0) != 0 ||
        !IsRootsAlone(status) || !IsRootsAlone(members)) {
      break;
    }
    parent = folder;
  }
  return parent;
}

Result<std::string> Cgroups::MakeFor(int32_t pid) const {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cgroup");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Result<std::string> present = ReadCgroupPath(text);
  if (!present) return present;
  uint32_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) return Refused("name cgroup");
  char name[32];
  snprintf(name, sizeof(name), "latchkey-%08x", number);
  const std::string path = Below(ParentFor(*present), name);
  if (mkdirat(root_.get(), path.c_str(), 0755) != 0) return Refused("make cgroup " + path);
  return path;
}

Result<UniqueFd> Cgroups::OpenFolder(const std::string& path) const {
  UniqueFd fd(openat(root_.get(), OrRoot(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return Refused("open cgroup " + path);
  return fd;
}

Result<void> Cgroups::Move(const std::string& path, int32_t pid) const {
  const UniqueFd members(
      openat(root_.get(), Below(path, "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(pid);
  if (!members || write(members.get(), text.data(), text.size()) < 0) {
    return Refused("move into cgroup " + path);
  }
  return {};
}

bool Cgroups::Remove(const std::string& path) const {
  return unlinkat(root_.get(), path.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT;
}

}  // namespace latchkey::broker
