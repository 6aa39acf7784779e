// Cgroups (version 2) for programs: one beneath where a process is, and the process into it.
//
// It is made beneath the deepest cgroup above the process that is root's alone, with all above it:
// out of a cgroup that a user may write to, he could move himself. So limits, and the service
// manager's own way to end what it started, go on holding as far as they are not the user's own.
// No controller is used. Takes root, no capability; everything goes by one descriptor of the
// hierarchy's root, so that it may be mounted nowhere.
#ifndef TOOLS_LATCHKEYD_KERNEL_CGROUPS_H_
#define TOOLS_LATCHKEYD_KERNEL_CGROUPS_H_

#include <cstdint>
#include <string>

#include "policy/model/error.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

class Cgroups {
 public:
  // Opens the hierarchy: where it is mounted, else by a mount of our own that nobody sees (which
  // takes CAP_SYS_ADMIN). kUnsupported where there is none.
  static Result<Cgroups> Open();

  // Makes an empty cgroup for a process, and returns its path below the root, without a slash at
  // its beginning. Removes what RemoveForsaken() finds where it makes it.
  Result<std::string> MakeFor(int32_t pid) const;
  // Opens one, as a directory.
  Result<UniqueFd> OpenFolder(const std::string& path) const;
  // Moves a process, with all its threads.
  Result<void> Move(const std::string& path, int32_t pid) const;
  // True when it is gone: there was none, or it was empty.
  bool Remove(const std::string& path) const;
  // Removes the cgroups in `parent` (empty: the root) that a broker made at least `seconds` ago
  // and that are empty: those of a broker that was killed have nobody else to do it.
  void RemoveForsaken(const std::string& parent, int64_t seconds) const;

 private:
  explicit Cgroups(UniqueFd root) : root_(std::move(root)) {}
  std::string ParentFor(const std::string& path) const;

  UniqueFd root_;
};

// Returns the path in the line of version 2 of /proc/PID/cgroup, without a slash at its beginning
// ("" for the root). An error for one that lies outside of our cgroup namespace, or is gone.
Result<std::string> ReadCgroupPath(const std::string& text);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_CGROUPS_H_
