#include "tools/latchkeyd/kernel/modules.h"

#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "tools/latchkeyd/kernel/xfrm_build.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

// Runs the system's module loader and waits for it.
Result<void> RunLoader(std::vector<std::string> words, const std::string& module,
                       const std::string& setting) {
  std::string program;
  std::ifstream file(setting);
  std::getline(file, program);
  if (program.empty() || program.front() != '/') program = "/sbin/modprobe";
  words.insert(words.begin(), program);
  words.insert(words.end(), {"--", module});
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  char* const environment[] = {path, nullptr};
  pid_t child = -1;
  const int error =
      posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments.data(), environment);
  if (error != 0) return Fail(Reason::kKernelRefused, "run " + program, std::strerror(error));
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) {
      return Fail(Reason::kKernelRefused, "wait for " + program, std::strerror(errno));
    }
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return Fail(Reason::kKernelRefused, "load module " + module, program + " failed");
  }
  return {};
}

}  // namespace

int TrySocketPolicy() {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  const Octets value = BuildSocketBypass(Family::kV4, /*out=*/true);
  const auto length = static_cast<socklen_t>(value.size());
  if (setsockopt(fd.get(), SOL_IP, IP_XFRM_POLICY, value.data(), length) != 0) return errno;
  return 0;
}

Result<void> LoadModule(const std::string& module, const std::string& setting) {
  return RunLoader({"-q"}, module, setting);
}

bool CanLoadModule(const std::string& module, const std::string& setting) {
  return RunLoader({"-n", "-q"}, module, setting).has_value();
}

Result<void> EnsureXfrmUser() {
  int error = TrySocketPolicy();
  if (error == 0) return {};
  if (error != EINVAL) {
    return Fail(Reason::kKernelRefused, "setsockopt IP_XFRM_POLICY", std::strerror(error));
  }
  const Result<void> loaded = LoadModule("xfrm_user", "/proc/sys/kernel/modprobe");
  error = TrySocketPolicy();
  if (error == 0) return {};
  return Fail(Reason::kUnsupported, "setsockopt IP_XFRM_POLICY",
              "the kernel takes no socket policies; " +
                  (loaded ? std::string("xfrm_user is loaded") : loaded.error().ToString()));
}

}  // namespace latchkey::broker
