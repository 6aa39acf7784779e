// What `latchkey doctor` looks at in the kernel: first read, as facts, then judged.
#ifndef TOOLS_LATCHKEY_DOCTOR_KERNEL_H_
#define TOOLS_LATCHKEY_DOCTOR_KERNEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "tools/latchkey/finding.h"

namespace latchkey::tool {

// Where to look; tests have places of their own.
struct KernelPlaces {
  std::string proc = "/proc";
  std::string cgroup = "/sys/fs/cgroup";
};

// How much there is of a part of the kernel.
enum class Presence {
  kUnknown,   // nothing tells
  kMissing,   // neither there nor to be had
  kLoadable,  // a module that can be loaded, or is built in
  kThere,
};

struct KernelFacts {
  Presence xfrm_user = Presence::kUnknown;
  Presence esp4 = Presence::kUnknown;
  Presence esp6 = Presence::kUnknown;
  Presence ah4 = Presence::kUnknown;
  Presence ah6 = Presence::kUnknown;
  bool ipv6 = false;
  bool cgroup2 = false;
  // Settings; nothing where there is no such file.
  std::optional<int64_t> larval_drop;
  std::optional<int64_t> acq_expires;
  std::optional<int64_t> syncookies;
  std::optional<int64_t> ptrace_scope;
  // Tried, as root alone may (ProbeKernel).
  bool tried = false;
  int socket_policy = 0;    // errno of setting one
  bool destroy = false;     // SOCK_DESTROY ends a connection
  bool disconnect = false;  // connect(AF_UNSPEC) does
};

// Reads what anybody may. Nothing is loaded or changed; the system's module loader is asked what it
// would do.
KernelFacts ReadKernel(const KernelPlaces& places);

// Tries, on sockets of its own, what needs CAP_NET_ADMIN.
void ProbeKernel(KernelFacts& facts);

Findings KernelFindings(const KernelFacts& facts);

}  // namespace latchkey::tool

#endif  // TOOLS_LATCHKEY_DOCTOR_KERNEL_H_
