// Sends that name the latch that they are to leave under.

#include <cerrno>

#include "shim/hooks.h"
#include "shim/latches.h"

namespace latchkey::shim {

ssize_t SendNamed(int fd, const msghdr& message, int flags) {
  Unnamed unnamed;
  int error = unnamed.Take(message);
  if (error == 0) error = SendErrorUnder(fd, unnamed.latch(), unnamed.message());
  if (error == 0) return SendMessageUnder(fd, &unnamed.message(), flags, unnamed.latch());
  errno = error;
  return -1;
}

// One after the other; what was sent before one that fails counts, as the kernel has it.
ssize_t SendSome(int fd, mmsghdr* messages, unsigned count, int flags) {
  unsigned sent = 0;
  const int saved = errno;
  while (sent < count) {
    unsigned plain = 0;
    while (sent + plain < count && !MayName(messages[sent + plain].msg_hdr)) ++plain;
    ssize_t result = 0;
    if (plain > 0) {
      result = SendPlain(fd, messages + sent, plain, flags);
    } else {
      const ssize_t octets = SendNamed(fd, messages[sent].msg_hdr, flags);
      if (octets >= 0) messages[sent].msg_len = static_cast<unsigned>(octets);
      result = octets >= 0 ? 1 : -1;
    }
    if (result > 0) sent += static_cast<unsigned>(result);
    if (result <= 0 && sent == 0) return result;
    if (result <= 0 || (plain > 0 && result < static_cast<ssize_t>(plain))) break;
  }
  errno = saved;
  return sent;
}

}  // namespace latchkey::shim
