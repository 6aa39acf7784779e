#include "tools/latchkeyd/server/serials.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

using Marks = std::map<std::string, uint64_t>;

std::unexpected<Error> Failed(const std::string& what) {
  return Fail(Reason::kKernelRefused, "remember serial", what + ": " + std::strerror(errno));
}

Result<Marks> Read(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    if (errno == ENOENT) return Marks{};
    return Failed(path);
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    return nlohmann::json::parse(text).get<Marks>();
  } catch (const nlohmann::json::exception&) {
    // What was seen is not known any more: that is not the same as nothing.
    return Fail(Reason::kKernelRefused, "remember serial", path + ": damaged");
  }
}

Result<void> Write(const std::string& path, const Marks& marks) {
  const std::string fresh = path + ".new";
  const std::string text = nlohmann::json(marks).dump(1) + "\n";
  const UniqueFd file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return Failed(fresh);
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      fsync(file.get()) != 0) {
    return Failed(fresh);
  }
  if (rename(fresh.c_str(), path.c_str()) != 0) return Failed(path);
  return {};
}

}  // namespace

Result<void> Serials::Use(const std::string& application, uint64_t serial) const {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) return Failed(directory_);
  const UniqueFd lock(open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock || flock(lock.get(), LOCK_EX) != 0) return Failed(directory_);
  const std::string path = directory_ + "/serials";
  Result<Marks> marks = Read(path);
  if (!marks) return std::unexpected(marks.error());
  const auto mark = marks->find(application);
  const uint64_t highest = mark == marks->end() ? 0 : mark->second;
  if (serial < highest) {
    return Fail(Reason::kPolicyRollback, "read policy",
                "serial " + std::to_string(serial) + " of \"" + application + "\": expected " +
                    std::to_string(highest) + " or higher, which was used before");
  }
  if (serial == highest) return {};
  (*marks)[application] = serial;
  return Write(path, *marks);
}

}  // namespace latchkey::broker
