// The control data of messages (shim/ancillary.h): any octets a program may send, and whatever the
// kernel may fill a buffer of any size with. But for LATCHKEY_LATCH and the mark that it is made of
// it stays as it was, octet for octet and in order; nothing is written beyond the buffer.
#include "shim/ancillary.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shim/latchkey.h"
#include "tests/fuzz/check.h"

namespace {

using latchkey::fuzz::Check;
using latchkey::shim::Unnamed;

constexpr uint64_t kCookie = 1;
constexpr uint32_t kTag = 0x10000;
constexpr uint64_t kKnown = 7;  // the latch behind the tag
constexpr size_t kLatchLength = CMSG_LEN(sizeof(uint64_t));

struct Cmsg {
  int level = 0;
  int type = 0;
  std::string data;

  bool operator==(const Cmsg&) const = default;
};
bool IsLatch(const Cmsg& each) { return each.level == SOL_LATCHKEY && each.type == LATCHKEY_LATCH; }
bool IsMark(const Cmsg& each) { return each.level == SOL_SOCKET && each.type == SO_MARK; }

// What is in control data. False where it is malformed.
bool Walk(const msghdr& message, std::vector<Cmsg>& all) {
  const auto* base = static_cast<const char*>(message.msg_control);
  for (size_t at = 0; message.msg_controllen - at >= sizeof(cmsghdr);) {
    cmsghdr header;
    std::memcpy(&header, base + at, sizeof(header));
    const size_t rest = message.msg_controllen - at;
    if (header.cmsg_len < sizeof(header) || header.cmsg_len > rest) return false;
    all.push_back({header.cmsg_level, header.cmsg_type,
                   std::string(base + at + sizeof(header), header.cmsg_len - sizeof(header))});
    at += std::min(rest, size_t{CMSG_ALIGN(header.cmsg_len)});
  }
  return true;
}

uint64_t ValueOf(const Cmsg& latch) {
  uint64_t value = 0;
  Check(latch.data.size() == sizeof(value), "a latch is a u64");
  std::memcpy(&value, latch.data.data(), sizeof(value));
  return value;
}

// A buffer of exactly its size, whose end a sanitizer watches.
struct Buffer {
  explicit Buffer(std::string_view octets)
      : data(static_cast<char*>(::operator new(octets.size()))), size(octets.size()) {
    std::ranges::copy(octets, data.get());
  }
  std::string_view text() const { return {data.get(), size}; }

  struct Delete {
    void operator()(char* octets) const { ::operator delete(octets); }
  };
  std::unique_ptr<char, Delete> data;
  size_t size;
};

// Sends it.
void Send(std::string_view octets) {
  const Buffer buffer(octets);
  msghdr message{};
  message.msg_control = octets.empty() ? nullptr : buffer.data.get();
  message.msg_controllen = octets.size();
  message.msg_flags = 5;
  std::vector<Cmsg> before;
  const bool whole = Walk(message, before);
  const auto named = std::ranges::count_if(before, IsLatch);
  Check(latchkey::shim::NamesLatch(message) == (named != 0), "a latch is seen where there is one");
  Unnamed unnamed;
  const int error = unnamed.Take(message);
  Check(buffer.text() == octets, "what a program sends is not written to");
  const auto latch = std::ranges::find_if(before, IsLatch);
  if (!whole || named != 1 || latch->data.size() != sizeof(uint64_t)) {
    return Check(error == EINVAL, "what is malformed, or names none or two, is refused");
  }
  const msghdr& after = unnamed.message();
  size_t at = 0;
  for (auto each = before.begin(); each != latch; ++each) at += CMSG_SPACE(each->data.size());
  const bool split = at != 0 && octets.size() > at + kLatchLength;
  if (split && octets.size() - kLatchLength > Unnamed::kMostControl) {
    return Check(error == ENOBUFS, "what is too long to put together is refused");
  }
  Check(error == 0, "nothing else is");
  Check(unnamed.latch() == ValueOf(*latch), "the latch is what was named");
  Check(after.msg_controllen == octets.size() - kLatchLength, "that much is gone");
  Check((after.msg_control != nullptr) == (after.msg_controllen != 0), "and nothing is no data");
  Check(after.msg_flags == message.msg_flags, "nothing else of the message is touched");
  std::vector<Cmsg> left;
  Check(after.msg_controllen == 0 || Walk(after, left), "what is left is well-formed");
  before.erase(latch);
  Check(left == before, "and is the rest, in order");
}

// One octet after the other; 0 when there are no more.
struct Reader {
  uint8_t Octet() {
    if (data.empty()) return 0;
    const auto octet = static_cast<uint8_t>(data[0]);
    data.remove_prefix(1);
    return octet;
  }
  std::string Octets(size_t count) {
    std::string octets(data.substr(0, count));
    data.remove_prefix(octets.size());
    octets.resize(count);
    return octets;
  }
  std::string_view data;
};

// As the kernel's put_cmsg() does.
void Put(msghdr& message, size_t room, const Cmsg& each) {
  const size_t left = room - message.msg_controllen;
  const size_t length = std::min(CMSG_LEN(each.data.size()), left);
  if (length < CMSG_LEN(each.data.size())) message.msg_flags |= MSG_CTRUNC;
  if (left < sizeof(cmsghdr)) return;
  cmsghdr header{};
  header.cmsg_len = length;
  header.cmsg_level = each.level;
  header.cmsg_type = each.type;
  auto* at = static_cast<char*>(message.msg_control) + message.msg_controllen;
  std::memcpy(at, &header, sizeof(header));
  std::memcpy(at + sizeof(header), each.data.data(), length - sizeof(header));
  message.msg_controllen += std::min(CMSG_SPACE(each.data.size()), left);
}

const latchkey::wire::LatchTable& Table() {
  static const auto table = [] {
    auto made = std::make_unique<latchkey::wire::LatchTable>();
    made->tag_mask = 0x7fff0000;
    auto& slot = made->slots[latchkey::wire::PlaceOfTag(kCookie, kTag, 0)];
    slot.cookie = kCookie;
    slot.latch = kKnown;
    slot.what =
        latchkey::wire::WhatOf(latchkey::wire::LatchSlotKind::kTag, 0, AF_INET, /*port=*/0, kTag);
    uint64_t address = 0;
    inet_pton(AF_INET, "10.9.0.2", &address);
    slot.address[0] = address;
    return made;
  }();
  return *table;
}

// Receives what the input has the kernel tell.
void Receive(Reader reader) {
  const uint8_t flags = reader.Octet();
  const size_t room = size_t{reader.Octet()} * ((flags & 8) != 0 ? 16 : 1);
  const Buffer buffer(std::string(room, '\x5a'));
  sockaddr_in from{};
  from.sin_family = AF_INET;
  inet_pton(AF_INET, "10.9.0.2", &from.sin_addr);
  msghdr message{};
  message.msg_name = (flags & 1) != 0 ? &from : nullptr;
  message.msg_namelen = sizeof(from);
  message.msg_control = room != 0 ? buffer.data.get() : nullptr;
  message.msg_controllen = room;
  const latchkey::shim::Room asked = latchkey::shim::RoomOf(message);
  message.msg_controllen = 0;
  bool marked = false;  // the kernel gives one
  while (!reader.data.empty()) {
    const uint8_t kind = reader.Octet();
    if (kind % 4 == 0 && !std::exchange(marked, true)) {
      const uint32_t mark = (kind & 4) != 0 ? kTag | 3 : kind;
      Put(message, room,
          {SOL_SOCKET, SO_MARK, std::string(reinterpret_cast<const char*>(&mark), sizeof(mark))});
    } else {
      Put(message, room, {IPPROTO_IP, kind, reader.Octets(reader.Octet())});
    }
  }
  std::vector<Cmsg> before;
  Check(Walk(message, before), "the kernel's is well-formed");
  const msghdr was = message;
  const std::string octets(buffer.text());
  cmsghdr* mark = latchkey::shim::MarkOf(message);
  const auto place = std::ranges::find_if(before, IsMark);
  Check((mark != nullptr) == (place != before.end()), "a mark is found where there is one");
  if (mark == nullptr) return;

  const latchkey::shim::Wants wants{true, (flags & 2) != 0, 99};
  const bool known = place->data.size() == 4 && (place->data[2] & 1) != 0;
  NameLatch(Table(), kCookie, wants, *mark, asked, message);
  std::vector<Cmsg> after;
  Check(message.msg_controllen <= room, "no more than there is room for");
  Check(Walk(message, after), "what a program gets is well-formed");
  Check((message.msg_flags & ~MSG_CTRUNC) == (was.msg_flags & ~MSG_CTRUNC), "no other flag");
  const auto latch = std::ranges::find_if(after, IsLatch);
  const size_t at = static_cast<size_t>(place - before.begin());
  if (latch == after.end()) {
    Check((message.msg_flags & MSG_CTRUNC) != 0, "one that has no room is told");
    Check(wants.marks || at + 1 == before.size(), "only the last had too little");
    if (!wants.marks) before.pop_back();
    Check(after == before, "all the rest is there");
    Check(buffer.text() == octets, "and nothing was written");
    return;
  }
  Check(message.msg_flags == was.msg_flags, "one that has room is told in full");
  Check(ValueOf(*latch) == (known ? kKnown : wants.latch), "it is the one behind the mark");
  Check(latch - after.begin() == static_cast<ptrdiff_t>(wants.marks ? before.size() : at),
        "it is in the mark's place, or the last");
  after.erase(latch);
  if (!wants.marks) before.erase(place);
  Check(after == before, "all the rest is there, in order");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  if ((data[0] & 1) != 0) {
    Send(rest);
  } else {
    Receive({rest});
  }
  return 0;
}
