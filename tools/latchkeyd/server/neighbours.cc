#include "tools/latchkeyd/server/neighbours.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>
#include <vector>

namespace latchkey::broker {

Result<UniqueFd> LockDirectory(const std::string& directory) {
  const std::string path = directory + "/lock";
  UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return Fail(Reason::kKernelRefused, "open lock", path + ": " + strerror(errno));
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return Fail(Reason::kKernelRefused, "lock", path + ": another latchkeyd is running");
  }
  return lock;
}

bool OtherBrokers(const std::string& own_directory, const std::string& base) {
  std::vector<std::string> directories = {base};
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(base + "/private", error)) {
    directories.push_back(entry.path().string());
  }
  return std::ranges::any_of(directories, [&](const std::string& directory) {
    if (directory == own_directory) return false;
    const UniqueFd lock(open((directory + "/lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    return lock && flock(lock.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  });
}

Turn::Turn(const std::string& base)
    : file_(open((base + "/turn").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)) {}

bool Turn::Take(std::chrono::milliseconds patience) {
  if (!file_) return true;
  constexpr std::chrono::milliseconds kAgain{5};
  const auto end = std::chrono::steady_clock::now() + patience;
  while (flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(kAgain);
  }
  return true;
}

void Turn::Pass() {
  if (file_) flock(file_.get(), LOCK_UN);
}

}  // namespace latchkey::broker
