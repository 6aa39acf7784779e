#include "tools/latchkeyd/kernel/no_xfrm.h"

#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>

#include "tools/latchkeyd/latch/kernel_port.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};
using Folder = std::unique_ptr<DIR, CloseFolder>;

std::string NameOf(unsigned index) {
  char name[IF_NAMESIZE] = {};
  return if_indextoname(index, name) != nullptr ? name : "";
}

// A device that went meanwhile, or a kernel without the setting, has it not.
bool IsSet(int folder, const std::string& path) {
  const UniqueFd fd(openat(folder, path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[16];
  if (!fd) return false;
  const ssize_t length = read(fd.get(), text, sizeof(text));
  return length > 0 && std::string(text, static_cast<size_t>(length)) != "0\n";
}

// Adds to `found` who has the setting of this name. `folder`: of a family's devices.
Result<void> AddWith(const std::string& folder, const std::string& setting,
                     const std::string& loopback, std::set<std::string>& found) {
  const Folder all(opendir(folder.c_str()));
  if (all == nullptr) {
    return Fail(Reason::kKernelRefused, "read settings of devices",
                folder + ": " + std::strerror(errno));
  }
  while (const dirent* each = readdir(all.get())) {
    const std::string name = each->d_name;
    if (name == "." || name == ".." || name == "default" || name == loopback) continue;
    if (IsSet(dirfd(all.get()), name + "/" + setting)) found.insert(name);
  }
  return {};
}

}  // namespace

Result<NoXfrm> ReadNoXfrm(const std::string& settings) {
  const std::string loopback = NameOf(kLoopbackDevice);
  const std::string v4 = settings + "/ipv4/conf";
  const std::string v6 = settings + "/ipv6/conf";
  NoXfrm found;
  Result<void> done = AddWith(v4, "disable_xfrm", loopback, found.out);
  if (done) done = AddWith(v4, "disable_policy", loopback, found.in_v4);
  // Without IPv6 there is no such folder.
  if (done && access(v6.c_str(), F_OK) == 0) {
    done = AddWith(v6, "disable_policy", loopback, found.in_v6);
  }
  if (!done) return std::unexpected(done.error());
  return found;
}

}  // namespace latchkey::broker
