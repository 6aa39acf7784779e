#include "tools/latchkeyd/kernel/secret.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

std::unexpected<Error> Bad(const std::string& path, const std::string& why) {
  return Fail(Reason::kBadRequest, "read secret file " + path, why);
}

}  // namespace

void Secret::Free::operator()(uint8_t* octets) const { sodium_free(octets); }

Result<Secret> Secret::Make(size_t size) {
  if (sodium_init() < 0) return Fail(Reason::kKernelRefused, "start libsodium");
  auto* octets = static_cast<uint8_t*>(sodium_malloc(size));
  if (octets == nullptr) return Fail(Reason::kKernelRefused, "allocate guarded memory");
  sodium_memzero(octets, size);
  return Secret(octets, size);
}

Result<Secret> ReadSecretFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat status {};
  if (!fd || fstat(fd.get(), &status) != 0) return Bad(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return Bad(path, "not a regular file");
  if (status.st_uid != geteuid() && status.st_uid != 0) {
    return Bad(path, "owned by uid " + std::to_string(status.st_uid));
  }
  if ((status.st_mode & 077) != 0) return Bad(path, "open to group or others, expected mode 0600");
  const auto size = static_cast<size_t>(status.st_size);
  if (size < kShortestSecret || size > kLongestSecret) {
    return Bad(path, std::to_string(size) + " octets, expected 16 to 4096");
  }
  Result<Secret> secret = Secret::Make(size);
  if (!secret) return secret;
  for (size_t done = 0; done < size;) {
    const ssize_t count = read(fd.get(), secret->octets().data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Bad(path, std::strerror(errno));
    if (count == 0) return Bad(path, "ends early");
    done += static_cast<size_t>(count);
  }
  return secret;
}

}  // namespace latchkey::broker
