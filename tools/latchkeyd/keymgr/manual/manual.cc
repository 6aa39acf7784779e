#include "tools/latchkeyd/keymgr/manual/manual.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace latchkey::broker {
namespace {

constexpr size_t kLargest = 1 << 20;  // octets, as for policies

class File {
 public:
  explicit File(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::unexpected<Error> Bad(const std::string& path, const std::string& why) {
  return Fail(Reason::kBadPolicy, "read " + path, why);
}

Result<std::string> ReadAll(int fd, const std::string& path) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Bad(path, std::strerror(errno));
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kLargest) return Bad(path, "larger than 1 MiB");
  }
}

}  // namespace

ManualKeyManager::ManualKeyManager(std::string path, std::function<void(const std::string&)> warn,
                                   uint32_t owner)
    : path_(std::move(path)), warn_(std::move(warn)), owner_(owner) {}

ManualKeyManager::Stamp ManualKeyManager::StampOf(const struct stat& status) {
  const auto nanoseconds = [](const timespec& time) {
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  };
  return Stamp{status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim),
               nanoseconds(status.st_ctim)};
}

Result<policy::Pad> ManualKeyManager::Read(Stamp* stamp) const {
  const File file(path_);
  struct stat status {};
  if (file.get() < 0 || fstat(file.get(), &status) != 0) return Bad(path_, std::strerror(errno));
  *stamp = StampOf(status);
  if (!S_ISREG(status.st_mode)) return Bad(path_, "not a regular file");
  if (status.st_uid != owner_) {
    return Bad(path_, "owned by uid " + std::to_string(status.st_uid) + ", expected " +
                          std::to_string(owner_));
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Bad(path_, "others than its owner may write it");
  }
  Result<std::string> text = ReadAll(file.get(), path_);
  if (!text) return std::unexpected(text.error());
  auto pad = policy::ParsePad(*text, path_);
  if (pad) return std::move(*pad);
  std::string lines;
  for (const policy::ParseError& error : pad.error()) {
    if (!lines.empty()) lines += '\n';
    lines += error.ToString();
  }
  return Bad(path_, lines);
}

bool ManualKeyManager::Refresh() {
  Stamp now;
  struct stat status {};
  int missing = 0;
  if (stat(path_.c_str(), &status) == 0) {
    now = StampOf(status);
  } else {
    missing = errno;
  }
  if (read_ == now) return false;
  std::string error;
  policy::Pad pad;
  if (missing == 0) {
    Result<policy::Pad> result = Read(&now);
    if (result) {
      pad = std::move(*result);
    } else {
      error = result.error().value;
    }
  } else if (missing != ENOENT) {
    error = path_ + ": " + std::strerror(missing);
  }
  read_ = now;
  pad_ = std::move(pad);
  if (error != error_ && !error.empty() && warn_) warn_("nobody is known: " + error);
  error_ = std::move(error);
  return true;
}

Identified ManualKeyManager::Identify(const Sa& sa, bool inbound) {
  Refresh();
  const Address& remote = inbound ? sa.source : sa.key.destination;
  const policy::PadEntry* entry = pad_.Find(sa.reqid, sa.key.spi, sa.key.destination, remote);
  if (entry == nullptr) return Identified::Nobody();
  Verified verified{entry->identity, false, {}};
  // One reqid for several peers, told apart by their addresses, is bound to none of them.
  verified.static_reqid =
      entry->reqid != 0 && std::ranges::all_of(pad_.entries, [&](const policy::PadEntry& other) {
        return other.reqid != entry->reqid || other.identity == entry->identity;
      });
  return Identified::Known(std::move(verified));
}

Result<uint64_t> ManualKeyManager::Acquire(const AcquireRequest& request) {
  return Fail(Reason::kNoSa, "acquire SA",
              request.flow.remote.ToString() + " has manual keys, or none");
}

}  // namespace latchkey::broker
