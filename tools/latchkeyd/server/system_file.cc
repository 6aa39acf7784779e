#include "tools/latchkeyd/server/system_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "tools/latchkeyd/kernel/unique_fd.h"

namespace latchkey::broker {
namespace {

constexpr char kStep[] = "read system policy";
constexpr off_t kMost = 65536;

std::unexpected<Error> At(const std::string& name, const toml::source_region& source,
                          const std::string& text) {
  return Fail(Reason::kBadPolicy, kStep,
              name + ":" + std::to_string(source.begin.line) + ":" +
                  std::to_string(source.begin.column) + ": " + text);
}

}  // namespace

Result<uint32_t> ParseSystemFile(std::string_view text, const std::string& name) {
  // toml++ throws on what is no TOML.
  toml::table table;
  try {
    table = toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    return At(name, error.source(), std::string(error.description()));
  }
  uint32_t mask = kDefaultMarkMask;
  bool version = false;
  for (const auto& [key, value] : table) {
    const std::string word(key.str());
    if (word == "latchkey") {
      if (value.value_exact<int64_t>() != 1) {
        return At(name, value.source(), "latchkey: expected language version 1");
      }
      version = true;
    } else if (word == "mark_mask") {
      const std::optional<int64_t> number = value.value_exact<int64_t>();
      if (!number || *number <= 0 || *number > 0xffffffffLL) {
        return At(name, value.source(), "mark_mask: expected 1 to 0xffffffff");
      }
      mask = static_cast<uint32_t>(*number);
      const uint32_t run = mask >> std::countr_zero(mask);
      if ((run & (run + 1)) != 0) {
        return At(name, value.source(), "mark_mask: expected bits side by side");
      }
    } else {
      return At(name, value.source(),
                "\"" + word + "\" is not supported yet: this version enforces mark_mask alone");
    }
  }
  if (!version) return Fail(Reason::kBadPolicy, kStep, name + ": expected latchkey = 1");
  return mask;
}

Result<uint32_t> ReadSystemFile(const std::string& path) {
  const auto failed = [&](const std::string& why) {
    return Fail(Reason::kBadPolicy, kStep, path + ": " + why);
  };
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file && errno == ENOENT) return kDefaultMarkMask;
  if (!file) return failed(std::strerror(errno));
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return failed(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return failed("not a regular file");
  if (status.st_uid != 0 || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return failed("must be root's, and nobody else's to write");
  }
  if (status.st_size > kMost) return failed("larger than 64 KiB");
  std::string text(static_cast<size_t>(status.st_size), '\0');
  const ssize_t count = pread(file.get(), text.data(), text.size(), 0);
  if (count != static_cast<ssize_t>(text.size())) return failed("cannot be read");
  return ParseSystemFile(text, path);
}

uint32_t GuardBit(uint32_t mark_mask) { return std::bit_floor(mark_mask); }

}  // namespace latchkey::broker
