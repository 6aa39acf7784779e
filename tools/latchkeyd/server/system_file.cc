#include "tools/latchkeyd/server/system_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "policy/system_parse.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

constexpr off_t kMost = 1 << 20;

}  // namespace

Result<policy::SystemPolicy> ReadSystemFile(const std::string& path) {
  const auto failed = [&](const std::string& why) {
    return Fail(Reason::kBadPolicy, "read system policy", path + ": " + why);
  };
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file && errno == ENOENT) return policy::SystemPolicy();
  if (!file) return failed(std::strerror(errno));
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return failed(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return failed("not a regular file");
  if (status.st_uid != 0 || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return failed("must be root's, and nobody else's to write");
  }
  if (status.st_size > kMost) return failed("larger than 1 MiB");
  std::string text(static_cast<size_t>(status.st_size), '\0');
  const ssize_t count = pread(file.get(), text.data(), text.size(), 0);
  if (count != static_cast<ssize_t>(text.size())) return failed("cannot be read");
  auto parsed = policy::ParseSystem(text, path);
  if (parsed) return std::move(*parsed);
  std::string lines;
  for (const policy::ParseError& error : parsed.error()) {
    lines += (lines.empty() ? "" : "\n") + error.ToString();
  }
  return Fail(Reason::kBadPolicy, "read system policy", lines);
}

uint32_t GuardBit(uint32_t mark_mask) { return std::bit_floor(mark_mask); }

uint32_t TagMask(uint32_t mark_mask) { return mark_mask & ~GuardBit(mark_mask); }

}  // namespace latchkey::broker
