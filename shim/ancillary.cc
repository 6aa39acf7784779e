#include "shim/ancillary.h"

#include <cerrno>

#include "shim/latchkey.h"
#include "shim/page_view.h"

namespace latchkey::shim {
namespace {

constexpr size_t kLength = CMSG_LEN(sizeof(uint64_t));
// So one takes the other's place.
static_assert(CMSG_SPACE(sizeof(uint64_t)) == CMSG_SPACE(sizeof(uint32_t)));
static_assert(CMSG_SPACE(sizeof(uint64_t)) == kLength);

void Copy(char* to, const char* from, size_t size) {
  for (size_t i = 0; i < size; ++i) to[i] = from[i];
}

// Calls it with each whole cmsg, as the kernel walks them, and where it begins; until it says true.
// False where one is malformed.
template <typename Visit>
bool EachCmsg(const msghdr& message, Visit visit) {
  auto* base = static_cast<char*>(message.msg_control);
  size_t at = 0;
  while (base != nullptr && at + sizeof(cmsghdr) <= message.msg_controllen) {
    auto& each = *reinterpret_cast<cmsghdr*>(base + at);
    if (each.cmsg_len < sizeof(cmsghdr) || each.cmsg_len > message.msg_controllen - at) {
      return false;
    }
    if (visit(each, at)) return true;
    at += CMSG_ALIGN(each.cmsg_len);
  }
  return true;
}

bool IsLatch(const cmsghdr& each) {
  return each.cmsg_level == SOL_LATCHKEY && each.cmsg_type == LATCHKEY_LATCH;
}

void Fill(cmsghdr& to, uint64_t latch) {
  to.cmsg_len = kLength;
  to.cmsg_level = SOL_LATCHKEY;
  to.cmsg_type = LATCHKEY_LATCH;
  __builtin_memcpy(CMSG_DATA(&to), &latch, sizeof(latch));
}

}  // namespace

Room RoomOf(const msghdr& message) {
  const auto most = [](size_t size) {
    return static_cast<uint16_t>(size < 0xffff ? size : 0xffff);
  };
  return {message.msg_name != nullptr ? most(message.msg_namelen) : uint16_t{0},
          message.msg_control != nullptr ? most(message.msg_controllen) : uint16_t{0}};
}

cmsghdr* MarkOf(msghdr& message) {
  cmsghdr* mark = nullptr;
  EachCmsg(message, [&](cmsghdr& each, size_t) {
    if (each.cmsg_level == SOL_SOCKET && each.cmsg_type == SO_MARK) mark = &each;
    return mark != nullptr;
  });
  return mark;
}

void NameLatch(const wire::LatchTable& table, uint64_t cookie, const Wants& wants, cmsghdr& mark,
               const Room& room, msghdr& message) {
  uint64_t latch = 0;
  if (mark.cmsg_len >= CMSG_LEN(sizeof(uint32_t))) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, CMSG_DATA(&mark), sizeof(bits));
    const uint32_t tag = bits & table.tag_mask.load(std::memory_order_relaxed);
    wire::Endpoint from;
    const bool known =
        message.msg_namelen <= room.name &&
        ReadEndpoint(static_cast<const sockaddr*>(message.msg_name), message.msg_namelen, from);
    if (tag != 0) latch = LatchBehind(table, cookie, tag, known ? &from : nullptr);
  }
  if (latch == 0) latch = wants.latch;
  auto* base = static_cast<char*>(message.msg_control);
  const auto at = static_cast<size_t>(reinterpret_cast<char*>(&mark) - base);
  if (wants.marks) {
    const size_t end = CMSG_ALIGN(message.msg_controllen);
    if (end + kLength <= room.control) {
      Fill(*reinterpret_cast<cmsghdr*>(base + end), latch);
      message.msg_controllen = end + kLength;
      return;
    }
  } else if (at + kLength <= message.msg_controllen) {
    return Fill(mark, latch);
  } else {
    message.msg_controllen = at;  // it is the last
  }
  message.msg_flags |= MSG_CTRUNC;
}

bool NamesLatch(const msghdr& message) {
  bool names = false;
  EachCmsg(message, [&](const cmsghdr& each, size_t) {
    names = IsLatch(each);
    return names;
  });
  return names;
}

bool SetsMark(const msghdr& message) {
  bool sets = false;
  EachCmsg(message, [&](const cmsghdr& each, size_t) {
    sets = each.cmsg_level == SOL_SOCKET && each.cmsg_type == SO_MARK;
    return sets;
  });
  return sets;
}

int Unnamed::Take(const msghdr& message) {
  message_ = message;
  size_t found = 0;
  size_t first = 0;
  int error = 0;
  const bool whole = EachCmsg(message, [&](const cmsghdr& each, size_t at) {
    if (!IsLatch(each)) return false;
    if (each.cmsg_len != kLength) error = EINVAL;
    if (found++ == 0) first = at;
    if (error == 0) __builtin_memcpy(&latch_, CMSG_DATA(&each), sizeof(latch_));
    return false;
  });
  if (!whole || error != 0 || found != 1) return EINVAL;
  auto* base = static_cast<char*>(message.msg_control);
  const size_t behind = first + kLength;
  const size_t rest = message.msg_controllen > behind ? message.msg_controllen - behind : 0;
  message_.msg_controllen = first + rest;
  if (first == 0) {
    message_.msg_control = rest != 0 ? base + behind : nullptr;
  } else if (rest != 0) {
    if (first + rest > kMostControl) return ENOBUFS;
    Copy(control_, base, first);
    Copy(control_ + first, base + behind, rest);
    message_.msg_control = control_;
  }
  return 0;
}

}  // namespace latchkey::shim
