// The cmsg LATCHKEY_LATCH, both ways: from the mark that a datagram came with, and out of what a
// program sends before the kernel sees it. Pure. Async-signal-safe, no allocation.
#ifndef SHIM_ANCILLARY_H_
#define SHIM_ANCILLARY_H_

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

#include "shim/latch_table.h"
#include "shim/wire/latch_table.h"

namespace latchkey::shim {

// What a message of a recvmsg() has room for, as the program said: the kernel overwrites it.
struct Room {
  uint16_t name = 0;  // 65,535 where it is more
  uint16_t control = 0;
};
Room RoomOf(const msghdr& message);

// Returns the SO_MARK that a message was received with, null: none. Only of one that the kernel has
// just filled in.
cmsghdr* MarkOf(msghdr& message);

// Puts the latch of a message in the place of its mark, or behind what came with it where the
// program asked for marks, too. MSG_CTRUNC where there is no room.
void NameLatch(const wire::LatchTable& table, uint64_t cookie, const Wants& wants, cmsghdr& mark,
               const Room& room, msghdr& message);

// True where there is a LATCHKEY_LATCH in what is to be sent; its control data must be readable.
bool NamesLatch(const msghdr& message);

// True where what is to be sent has a mark of its own (SO_MARK); its control data must be readable.
bool SetsMark(const msghdr& message);

// A message without its LATCHKEY_LATCH.
class Unnamed {
 public:
  // Takes it out. 0, or the errno: EINVAL, it is no u64, or there are two; ENOBUFS, other control
  // data stand before and behind it, and they are more than kMostControl octets.
  int Take(const msghdr& message);

  const msghdr& message() const { return message_; }
  uint64_t latch() const { return latch_; }

  static constexpr size_t kMostControl = 1024;

 private:
  msghdr message_{};
  uint64_t latch_ = 0;
  alignas(cmsghdr) char control_[kMostControl];
};

}  // namespace latchkey::shim

#endif  // SHIM_ANCILLARY_H_
