#include "tools/latchkey/siblings.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "tools/latchkey/elf_check.h"
#include "tools/latchkey/environment.h"
#include "tools/unique_fd.h"

namespace latchkey::tool {
namespace {

// Returns the folder of the running program, "" when it cannot be told.
std::string OwnFolder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0 || length == static_cast<ssize_t>(sizeof(path))) return {};
  const std::string own(path, static_cast<size_t>(length));
  return own.substr(0, own.rfind('/'));
}

Outcome<std::string> FindBeside(const char* what, std::initializer_list<const char*> places,
                                int access_mode) {
  const std::string folder = OwnFolder();
  if (folder.empty()) {
    return Refuse(kExitLauncher, std::string(what) + ": cannot tell where this program lies");
  }
  std::string looked;
  for (const char* place : places) {
    const std::string path = folder + "/" + place;
    if (access(path.c_str(), access_mode) == 0) {
      char resolved[PATH_MAX];
      if (realpath(path.c_str(), resolved) != nullptr) return std::string(resolved);
    }
    looked += (looked.empty() ? "" : ", ") + path;
  }
  return Refuse(kExitLauncher, std::string(what) + ": not found (looked at " + looked + ")");
}

}  // namespace

const char* TrustedEnvironment(const char* name) {
  const char* value = secure_getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

Outcome<std::string> FindShim() {
  std::string path;
  if (const char* named = TrustedEnvironment("LATCHKEY_SHIM"); named != nullptr) {
    path = named;
  } else {
    auto found = FindBeside("liblatchkey.so",
                            {"liblatchkey.so", "../lib/latchkey/liblatchkey.so",
                             "../shim/liblatchkey.so", "../../shim/liblatchkey.so"},
                            F_OK);
    if (!found) return found;
    path = *found;
  }
  if (!CanPreload(path)) {
    return Refuse(kExitLauncher,
                  path + ": LD_PRELOAD cannot name it: not absolute, or with a blank, ':' or '$'");
  }
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return Refuse(kExitLauncher, path + ": " + std::strerror(errno));
  if (const std::string why = CheckSharedObject(FileReader(fd.get())); !why.empty()) {
    return Refuse(kExitLauncher, path + ": " + why);
  }
  return path;
}

Outcome<std::string> FindBroker() {
  return FindBeside(
      "latchkeyd",
      {"latchkeyd", "../sbin/latchkeyd", "../libexec/latchkey/latchkeyd", "../latchkeyd/latchkeyd"},
      X_OK);
}

}  // namespace latchkey::tool
