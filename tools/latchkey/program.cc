#include "tools/latchkey/program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "tools/latchkey/elf_check.h"
#include "tools/unique_fd.h"

namespace latchkey::tool {
namespace {

constexpr int kMaxScripts = 4;  // the kernel follows 4 interpreters (fs/exec.c, exec_binprm)

int ExitFor(int error) {
  return error == ENOENT || error == ENOTDIR ? kExitNotFound : kExitCannotRun;
}

std::string ErrorText(int error) { return std::strerror(error); }

// Returns 0 when the file may be executed, else why not.
int MayExecute(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  if (!S_ISREG(status.st_mode)) return EACCES;
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) return errno;
  return 0;
}

std::string Resolve(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr),
                                                             &std::free);
  return resolved ? std::string(resolved.get()) : std::string();
}

Outcome<Program> Named(std::string path) {
  const size_t slash = path.rfind('/');
  const std::string folder = Resolve(slash == std::string::npos ? "."
                                     : slash == 0               ? "/"
                                                                : path.substr(0, slash));
  if (folder.empty()) {
    return Refuse(kExitLauncher, path + ": its folder cannot be resolved: " + ErrorText(errno));
  }
  const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
  return Program{std::move(path), (folder == "/" ? "" : folder) + "/" + file};
}

// Says what makes the loader ignore LD_PRELOAD, "" when nothing does.
std::string CheckPrivileges(int fd, const struct stat& status) {
  if ((status.st_mode & S_ISUID) != 0) return "set-user-ID: the loader ignores the shim";
  if ((status.st_mode & S_ISGID) != 0) return "set-group-ID: the loader ignores the shim";
  if (fgetxattr(fd, "security.capability", nullptr, 0) >= 0) {
    return "has file capabilities: the loader ignores the shim";
  }
  if (errno != ENODATA && errno != EOPNOTSUPP) {
    return "its file capabilities cannot be read: " + ErrorText(errno);
  }
  return {};
}

class Checker {
 public:
  explicit Checker(const char* search_path) : search_path_(search_path) {}

  Outcome<void> Check(const std::string& path, const std::string& context, int scripts) {
    const auto refuse = [&](int exit, const std::string& why) {
      return Refuse(exit, context + path + ": " + why);
    };
    if (const int error = MayExecute(path); error != 0) {
      return refuse(ExitFor(error), ErrorText(error));
    }
    // Not blocking: the file may have become a FIFO meanwhile.
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat status;
    if (!fd || fstat(fd.get(), &status) != 0) {
      return refuse(ExitFor(errno), "cannot be read, so it cannot be checked: " + ErrorText(errno));
    }
    const ReadAt read = FileReader(fd.get());
    std::array<char, 256> beginning;
    const auto count = read(std::as_writable_bytes(std::span(beginning)), 0);
    if (count < 0) return refuse(kExitCannotRun, "cannot be read: " + ErrorText(errno));
    Script script;
    switch (KindOf(std::string_view(beginning.data(), static_cast<size_t>(count)), script)) {
      case FileKind::kScript:
        if (scripts >= kMaxScripts) return refuse(kExitCannotRun, "too many interpreters");
        return CheckScript(path, script, context, scripts);
      case FileKind::kBadScript:
        return refuse(kExitCannotRun, "its #! line names no interpreter, or is too long");
      case FileKind::kOther:
        return refuse(kExitCannotRun, "neither an ELF program nor a script with a #! line");
      case FileKind::kElf:
        break;
    }
    std::string why = CheckProgram(read);
    if (!why.empty() && IsStatic(read)) alone_ = context + path + ": " + std::exchange(why, {});
    if (why.empty()) why = CheckPrivileges(fd.get(), status);
    if (!why.empty()) return refuse(kExitCannotRun, why);
    return {};
  }

  // Why the shim is not in what was checked, though it runs; "" when it is.
  const std::string& alone() const { return alone_; }

 private:
  Outcome<void> CheckScript(const std::string& path, const Script& script,
                            const std::string& context, int scripts) {
    const std::string inner = context + path + ": its interpreter ";
    if (auto checked = Check(script.interpreter, inner, scripts + 1); !checked) return checked;
    const std::string& interpreter = script.interpreter;
    if (interpreter.substr(interpreter.rfind('/') + 1) != "env") return {};
    const std::optional<std::string> started = StartedByEnv(script.argument);
    if (!started) {
      return Refuse(kExitCannotRun, inner + interpreter + " " + script.argument +
                                        ": cannot tell what it starts, and with which environment");
    }
    auto found = FindProgram(*started, search_path_);
    if (!found) return Refuse(found.error().exit, inner + found.error().text);
    return Check(found->path, inner, scripts + 1);
  }

  // Returns what `env ARGUMENT` looks up in PATH. Of env's options only -S is understood: -i and -u
  // may take LD_PRELOAD away, and assignments may replace it.
  static std::optional<std::string> StartedByEnv(std::string_view argument) {
    if (argument.empty()) return std::nullopt;
    if (!argument.starts_with("-S")) {
      if (argument.front() == '-' || argument.find('=') != std::string_view::npos) {
        return std::nullopt;
      }
      return std::string(argument);
    }
    std::istringstream words{std::string(argument.substr(2))};
    std::string word;
    while (words >> word) {
      if (word.front() == '-' || word.find_first_of("\\\"'$#") != std::string::npos) {
        return std::nullopt;
      }
      if (word.find('=') == std::string::npos) return word;
      if (word.starts_with("LD_") || word.starts_with("LATCHKEY_") || word.starts_with("PATH=")) {
        return std::nullopt;
      }
    }
    return std::nullopt;
  }

  const char* search_path_;
  std::string alone_;
};

}  // namespace

Outcome<Program> FindProgram(const std::string& name, const char* search_path) {
  if (name.empty()) return Refuse(kExitNotFound, "'': no such program");
  if (name.find('/') != std::string::npos) {
    const int error = MayExecute(name);
    if (error != 0) return Refuse(ExitFor(error), name + ": " + ErrorText(error));
    return Named(name);
  }
  std::string_view rest = search_path != nullptr ? search_path : "/bin:/usr/bin";
  int denied = 0;
  std::string denied_path;
  while (true) {
    const size_t colon = rest.find(':');
    const std::string folder(rest.substr(0, colon));
    // "./" where execvp says nothing: with an empty folder execve must not search again.
    std::string path = folder.empty() ? "." : folder;
    path += "/" + name;
    const int error = MayExecute(path);
    if (error == 0) return Named(std::move(path));
    if (error != ENOENT && error != ENOTDIR && denied == 0) {
      denied = error;
      denied_path = path;
    }
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  // A folder of that name in PATH is no program, whatever else it is.
  if (denied != 0 && denied != EISDIR) {
    return Refuse(kExitCannotRun, denied_path + ": " + ErrorText(denied));
  }
  return Refuse(kExitNotFound, name + ": no such program in PATH");
}

Outcome<std::string> CheckLoadable(const std::string& path, const char* search_path) {
  Checker checker(search_path);
  if (auto checked = checker.Check(path, "", 0); !checked) return std::unexpected(checked.error());
  return checker.alone();
}

}  // namespace latchkey::tool
