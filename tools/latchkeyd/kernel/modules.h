// Sees to it that the kernel takes socket policies: on a distribution kernel it answers EINVAL
// until the module xfrm_user is loaded, and does not load it by itself.
#ifndef TOOLS_LATCHKEYD_KERNEL_MODULES_H_
#define TOOLS_LATCHKEYD_KERNEL_MODULES_H_

#include <string>

#include "policy/model/error.h"

namespace latchkey::broker {

// Sets and clears a policy on a throw-away socket; when the kernel says EINVAL, loads xfrm_user and
// tries again. To be called once at start, before privileges are dropped: it runs a program and
// waits for it. kUnsupported or kKernelRefused when socket policies cannot be had.
Result<void> EnsureXfrmUser();

// Runs the system's module loader (the path in `setting`, a file such as
// /proc/sys/kernel/modprobe, else /sbin/modprobe) for `module`; no shell, an empty environment.
Result<void> LoadModule(const std::string& module, const std::string& setting);

// True when the same program says that it could load `module` (-n: nothing is loaded), or that it
// is built in.
bool CanLoadModule(const std::string& module, const std::string& setting);

// Returns 0, or the errno of setting a policy on a throw-away socket (CAP_NET_ADMIN).
int TrySocketPolicy();

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_KERNEL_MODULES_H_
