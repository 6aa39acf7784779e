#include "tools/latchkeyd/kernel/larval_hold.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace latchkey::broker {

LarvalHold::LarvalHold(std::string mark, const std::string& path)
    : mark_(std::move(mark)), fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {
  if (!fd_) {
    complaint_ = path + ": " + std::strerror(errno) +
                 ": what a program sends before there is an SA is lost, and sent again a second "
                 "later";
    return;
  }
  if (mark_.empty() || access(mark_.c_str(), F_OK) != 0) return;
  switched_ = true;  // by a broker that is no more
  Set(false);
}

bool LarvalHold::Set(bool on) {
  if (!fd_) return false;
  if (!on) {
    if (!switched_) return true;
    switched_ = pwrite(fd_.get(), "1", 1, 0) != 1;
    if (!switched_) Unmark();
    return !switched_;
  }
  char now = 0;
  if (pread(fd_.get(), &now, 1, 0) != 1) return false;
  if (now == '0') return true;
  if (!Mark()) return false;  // a kill would leave it switched for good
  switched_ = pwrite(fd_.get(), "0", 1, 0) == 1;
  if (!switched_) Unmark();
  return switched_;
}

bool LarvalHold::Mark() const {
  if (mark_.empty()) return true;
  const UniqueFd made(open(mark_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  return static_cast<bool>(made);
}

void LarvalHold::Unmark() const {
  if (!mark_.empty()) unlink(mark_.c_str());
}

}  // namespace latchkey::broker
