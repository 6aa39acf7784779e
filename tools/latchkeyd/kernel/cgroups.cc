#include "tools/latchkeyd/kernel/cgroups.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

namespace latchkey::broker {
namespace {

constexpr std::string_view kName = "latchkey-";
// From its making until somebody is in it a cgroup is empty for a moment.
constexpr int64_t kForsakenSeconds = 60;
constexpr const char* kMounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

std::unexpected<Error> Refused(const std::string& step) {
  return Fail(Reason::kKernelRefused, step, std::strerror(errno));
}

bool IsWritableHierarchy(int fd) {
  struct statfs status {};
  return fstatfs(fd, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC &&
         (status.f_flags & ST_RDONLY) == 0;
}

UniqueFd OpenMounted() {
  for (const char* path : kMounts) {
    UniqueFd fd(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (fd && IsWritableHierarchy(fd.get())) return fd;
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

std::string Below(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

// The hierarchy's root is nobody's to write to (mode 0555); its owner, who is root, may change that
// for the moment. `change`: mkdirat() or rmdir of what is in it.
template <typename Change>
bool ChangeFolder(int root, const std::string& path, const Change& change) {
  if (change() == 0) return true;
  struct stat status {};
  const bool in_root = path.find('/') == std::string::npos;
  if (errno != EACCES || !in_root || fstat(root, &status) != 0) return false;
  const mode_t mode = status.st_mode & 07777;
  if (fchmodat(root, ".", mode | S_IWUSR, 0) != 0) return false;
  const bool done = change() == 0;
  const int error = errno;
  const int restored = fchmodat(root, ".", mode, 0);
  static_cast<void>(restored);  // it did let us before
  errno = error;
  return done;
}

// As MakeFor() names them.
bool IsOurs(std::string_view name) {
  return name.size() == kName.size() + 8 && name.starts_with(kName) &&
         name.find_first_not_of("0123456789abcdef", kName.size()) == std::string_view::npos;
}

const char* OrRoot(const std::string& path) { return path.empty() ? "." : path.c_str(); }

}  // namespace

Result<std::string> ReadCgroupPath(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("0::/")) continue;
    std::string path = line.substr(4);
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
  char name[16];
  snprintf(name, sizeof(name), "%08x", number);
  const std::string parent = ParentFor(*present);
  RemoveForsaken(parent, kForsakenSeconds);
  std::string path = Below(parent, std::string(kName) + name);
  const auto make = [&] { return mkdirat(root_.get(), path.c_str(), 0755); };
  if (!ChangeFolder(root_.get(), path, make)) return Refused("make cgroup " + path);
  // Whatever our umask: programs look at what is about them there.
  if (fchmodat(root_.get(), path.c_str(), 0755, 0) != 0) {
    const Error error{"make cgroup " + path, std::strerror(errno), Reason::kKernelRefused};
    Remove(path);
    return std::unexpected(error);
  }
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
  const auto remove = [&] { return unlinkat(root_.get(), path.c_str(), AT_REMOVEDIR); };
  return ChangeFolder(root_.get(), path, remove) || errno == ENOENT;
}

void Cgroups::RemoveForsaken(const std::string& parent, int64_t seconds) const {
  UniqueFd fd(openat(root_.get(), OrRoot(parent), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return;
  DIR* const folder = fdopendir(fd.get());
  if (folder == nullptr) return;
  fd.Release();
  const time_t now = time(nullptr);
  std::vector<std::string> forsaken;
  while (const dirent* entry = readdir(folder)) {
    struct stat status {};
    if (IsOurs(entry->d_name) &&
        fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        status.st_mtime <= now - seconds) {
      forsaken.push_back(Below(parent, entry->d_name));
    }
  }
  closedir(folder);
  for (const std::string& path : forsaken) Remove(path);
}

}  // namespace latchkey::broker
