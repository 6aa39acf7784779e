#include "tools/latchkey/policy_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "policy/parse.h"

namespace latchkey::tool {
namespace {

constexpr size_t kMaxPolicy = size_t{1} << 20;  // as the parser takes (policy/parse.h)

// Returns `path` with its folder's links resolved, "" when the folder is not there.
std::string ResolveFolder(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {};
  char resolved[PATH_MAX];
  if (realpath(slash == 0 ? "/" : path.substr(0, slash).c_str(), resolved) == nullptr) return {};
  std::string folder = resolved;
  if (folder == "/") folder.clear();
  return folder + path.substr(slash);
}

Outcome<std::string> ReadAll(int fd, const std::string& name) {
  std::string text;
  char buffer[16384];
  while (true) {
    // pread leaves the offset alone: the broker, which gets this descriptor, reads from there.
    const ssize_t count = pread(fd, buffer, sizeof(buffer), static_cast<off_t>(text.size()));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Refuse(kExitLauncher, name + ": " + std::strerror(errno));
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kMaxPolicy)
      return Refuse(kExitLauncher,
                    name + ":1:1: larger than 1 MiB: expected at most 1048576 octets");
  }
}

}  // namespace

Outcome<PolicyFile> LoadPolicy(const std::string& name) {
  PolicyFile file;
  file.name = name;
  file.fd.Reset(open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status;
  if (!file.fd || fstat(file.fd.get(), &status) != 0) {
    return Refuse(kExitLauncher, name + ": " + std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) return Refuse(kExitLauncher, name + ": not a regular file");
  const std::string signature = name + ".minisig";
  file.signature.Reset(open(signature.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.signature && errno != ENOENT) {
    return Refuse(kExitLauncher, signature + ": " + std::strerror(errno));
  }
  auto text = ReadAll(file.fd.get(), name);
  if (!text) return std::unexpected(text.error());
  auto policy = policy::Parse(*text, name);
  if (!policy) {
    std::string lines;
    for (const policy::ParseError& error : policy.error()) {
      lines += (lines.empty() ? "" : "\n") + error.ToString();
    }
    return Refuse(kExitLauncher, lines);
  }
  file.policy = std::move(*policy);
  return file;
}

std::optional<std::string> ListedAs(const policy::Policy& policy, const Program& program) {
  if (policy.program.empty()) return program.absolute;
  for (const std::string& listed : policy.program) {
    if (listed == program.path || listed == program.absolute ||
        ResolveFolder(listed) == program.absolute) {
      return listed;
    }
  }
  return std::nullopt;
}

Outcome<std::optional<PolicyFile>> FindPolicy(const std::string& folder, const Program& program) {
  DIR* listing = opendir(folder.c_str());
  if (listing == nullptr) {
    if (errno == ENOENT) return std::nullopt;
    return Refuse(kExitLauncher, folder + ": " + std::strerror(errno));
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(listing)) {
    const std::string_view name = entry->d_name;
    if (name.ends_with(".toml") && !name.starts_with('.')) {
      names.push_back(folder + "/" + std::string(name));
    }
    errno = 0;
  }
  const int error = errno;
  closedir(listing);
  if (error != 0) return Refuse(kExitLauncher, folder + ": " + std::strerror(error));
  std::sort(names.begin(), names.end());

  std::optional<PolicyFile> found;
  for (const std::string& name : names) {
    auto file = LoadPolicy(name);
    if (!file) return std::unexpected(file.error());
    if (file->policy.program.empty() || !ListedAs(file->policy, program)) continue;
    if (found) {
      return Refuse(kExitLauncher, program.path + ": two policies name it: " + found->name +
                                       " and " + name + "; choose one with -p");
    }
    found = std::move(*file);
  }
  return found;
}

}  // namespace latchkey::tool
