#include "tools/latchkeyd/kernel/larval_hold.h"

#include <fcntl.h>
#include <unistd.h>

namespace latchkey::broker {

LarvalHold::LarvalHold(const std::string& path) : fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}

bool LarvalHold::Set(bool on) {
  if (!fd_) return false;
  if (!on) {
    if (!switched_) return true;
    switched_ = pwrite(fd_.get(), "1", 1, 0) != 1;
    return !switched_;
  }
  char now = 0;
  if (pread(fd_.get(), &now, 1, 0) != 1) return false;
  if (now == '0') return true;
  switched_ = pwrite(fd_.get(), "0", 1, 0) == 1;
  return switched_;
}

}  // namespace latchkey::broker
