#include "tools/latchkey/capabilities.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace latchkey::tool {
namespace {

constexpr int kDropped[] = {CAP_NET_ADMIN, CAP_NET_RAW};

// _LINUX_CAPABILITY_VERSION_3: two words a set; both of ours are in the first.
struct Sets {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> words{};

  bool Read() { return syscall(SYS_capget, &header, words.data()) == 0; }
  bool Write() { return syscall(SYS_capset, &header, words.data()) == 0; }
};

constexpr uint32_t Bit(int capability) { return uint32_t{1} << capability; }

}  // namespace

bool HasNetAdmin() {
  Sets sets;
  return sets.Read() && (sets.words[0].effective & Bit(CAP_NET_ADMIN)) != 0;
}

Result<void> DropNetworkCapabilities() {
  const auto fail = [](const char* step) {
    return Fail(Reason::kKernelRefused, step, std::strerror(errno));
  };
  Sets sets;
  if (!sets.Read()) return fail("read capabilities");
  // At exec the root user's program gets its bounding set back (capabilities(7), "Capabilities and
  // execution of programs by root"), so for root that set has to go as well.
  const bool root = getuid() == 0 || geteuid() == 0;
  for (const int capability : kDropped) {
    const int bounded = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (bounded < 0) return fail("read the capability bounding set");
    if (bounded == 1 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && root) {
      return fail("drop from the capability bounding set");
    }
    // Fails where the ambient set is unknown (before Linux 4.3) or has it not: both are fine,
    // because what leaves the permitted set below leaves the ambient set too.
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, capability, 0, 0);
    sets.words[0].effective &= ~Bit(capability);
    sets.words[0].permitted &= ~Bit(capability);
    sets.words[0].inheritable &= ~Bit(capability);
  }
  if (!sets.Write()) return fail("drop capabilities");
  return {};
}

}  // namespace latchkey::tool
