#include "tools/latchkeyd/server/privileges.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace latchkey::broker {
namespace {

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }
constexpr uint64_t kKept =
    Bit(CAP_NET_ADMIN) | Bit(CAP_SYS_PTRACE) | Bit(CAP_DAC_READ_SEARCH) | Bit(CAP_KILL);

bool Read(__user_cap_data_struct (&data)[2]) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  return syscall(SYS_capget, &header, data) == 0;
}

}  // namespace

bool HasNetAdmin() {
  __user_cap_data_struct data[2] = {};
  return Read(data) && (data[0].effective & Bit(CAP_NET_ADMIN)) != 0;
}

Result<void> DropPrivileges() {
  const auto failed = [](const char* step) {
    return Fail(Reason::kKernelRefused, step, std::strerror(errno));
  };
  __user_cap_data_struct data[2] = {};
  if (!Read(data)) return failed("read capabilities");
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
    if ((kKept & Bit(capability)) != 0) continue;
    // Without CAP_SETPCAP the bounding set stays; no_new_privs makes it moot.
    if (prctl(PR_CAPBSET_DROP, capability) != 0 && errno != EPERM) return failed("drop capability");
  }
  for (int i = 0; i < 2; ++i) {
    const auto kept = static_cast<uint32_t>(kKept >> (32 * i));
    data[i].effective &= kept;
    data[i].permitted &= kept;
    data[i].inheritable = 0;
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  if (syscall(SYS_capset, &header, data) != 0) return failed("drop capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("set no_new_privs");
  return {};
}

}  // namespace latchkey::broker
