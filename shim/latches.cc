#include "shim/latches.h"

#include <cerrno>

#include "shim/ask.h"
#include "shim/page_view.h"
#include "shim/readable.h"
#include "shim/session.h"

namespace latchkey::shim {
namespace {

// What is asked about a socket once for all that was received by one call.
struct Asked {
  const wire::LatchTable* table = nullptr;
  uint64_t cookie = 0;
  Wants wants;
};

Asked AskAboutLatches(int fd) {
  Asked asked;
  const wire::Page* page = CurrentPage();
  if (page == nullptr || !CookieOf(fd, asked.cookie)) return asked;
  asked.table = &page->latches;
  asked.wants = WantsOf(*asked.table, asked.cookie);
  return asked;
}

// True where there are control data to be looked at.
bool MayRead(const msghdr& message) {
  return message.msg_control != nullptr && message.msg_controllen >= sizeof(cmsghdr) &&
         CurrentPage() != nullptr &&
         (!TellsLatches() || IsReadable(message.msg_control, message.msg_controllen));
}

}  // namespace

bool TellsLatches() {
  const wire::Page* page = CurrentPage();
  return page != nullptr && (page->flags.load(std::memory_order_acquire) & wire::kPageLatches) != 0;
}

Wants WantsOf(int fd) { return AskAboutLatches(fd).wants; }

void NameReceived(int fd, msghdr& message, const Room& room) {
  cmsghdr* mark = MarkOf(message);
  if (mark == nullptr) return;
  const Asked asked = AskAboutLatches(fd);
  if (!asked.wants.latches) return;  // it asked for marks alone
  NameLatch(*asked.table, asked.cookie, asked.wants, *mark, room, message);
}

Rooms::Rooms(const mmsghdr* messages, unsigned count) {
  for (unsigned i = 0; i < count && i < kMost; ++i) each[i] = RoomOf(messages[i].msg_hdr);
}

void NameReceived(int fd, mmsghdr* messages, unsigned count, const Rooms& rooms) {
  Asked asked;
  for (unsigned i = 0; i < count; ++i) {
    msghdr& message = messages[i].msg_hdr;
    cmsghdr* mark = MarkOf(message);
    if (mark == nullptr) continue;
    if (asked.table == nullptr) asked = AskAboutLatches(fd);
    if (!asked.wants.latches) return;
    const Room room = i < Rooms::kMost ? rooms.each[i] : Room{};
    NameLatch(*asked.table, asked.cookie, asked.wants, *mark, room, message);
  }
}

bool MayName(const msghdr& message) { return MayRead(message) && NamesLatch(message); }

// By the mark of its socket alone the kernel knows that a datagram is held; and what a TCP socket
// sends besides its data, likewise.
int ControlError(int fd, const msghdr& message) {
  const bool marked = MayRead(message) && SetsMark(message) && IsInet(fd) && IsGuarded(fd);
  return marked ? EPERM : 0;
}

int SendErrorUnder(int fd, uint64_t latch, const msghdr& message) {
  const Asked asked = AskAboutLatches(fd);
  if (!asked.wants.latches) return EPERM;
  wire::Endpoint to;
  const bool named = message.msg_name != nullptr;
  if (named &&
      (!IsReadable(message.msg_name, message.msg_namelen) ||
       !ReadEndpoint(static_cast<const sockaddr*>(message.msg_name), message.msg_namelen, to))) {
    return EPERM;
  }
  return SendErrorUnder(*asked.table, asked.cookie, latch, named ? &to : nullptr);
}

}  // namespace latchkey::shim
