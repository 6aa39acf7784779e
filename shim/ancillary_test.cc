// The cmsg LATCHKEY_LATCH in and out of control data of every kind.
#include "shim/ancillary.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "shim/latchkey.h"

namespace latchkey::shim {
namespace {

constexpr uint32_t kMask = 0x7fff0000;

// Control data of a program's.
struct Control {
  alignas(cmsghdr) char octets[2048] = {};
  size_t size = 0;
  msghdr message{};

  Control() { message.msg_control = octets; }
  void Add(int level, int type, const void* data, size_t length) {
    auto* header = reinterpret_cast<cmsghdr*>(octets + size);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(length);
    std::memcpy(CMSG_DATA(header), data, length);
    size += CMSG_SPACE(length);
    message.msg_controllen = size;
  }
  void AddNumber(int level, int type, uint32_t number) { Add(level, type, &number, 4); }
  void AddLatch(uint64_t latch) { Add(SOL_LATCHKEY, LATCHKEY_LATCH, &latch, 8); }
};

// "level/type/length=value" of each, the value as a number.
std::string Told(const msghdr& message) {
  std::string text;
  auto* all = const_cast<msghdr*>(&message);
  for (cmsghdr* each = CMSG_FIRSTHDR(all); each != nullptr; each = CMSG_NXTHDR(all, each)) {
    uint64_t value = 0;
    const size_t length = each->cmsg_len - CMSG_LEN(0);
    std::memcpy(&value, CMSG_DATA(each), length < 8 ? length : 8);
    text += std::to_string(each->cmsg_level) + "/" + std::to_string(each->cmsg_type) + "/" +
            std::to_string(length) + "=" + std::to_string(value) + " ";
  }
  return text;
}

const std::string kOurs = std::to_string(SOL_LATCHKEY) + "/1/8=";

struct Received {
  std::unique_ptr<wire::LatchTable> table = std::make_unique<wire::LatchTable>();
  Control control;
  sockaddr_in from{};
  Wants wants{true, false, 0};

  Received() {
    table->tag_mask = kMask;
    from.sin_family = AF_INET;
    from.sin_port = htons(53);
    inet_pton(AF_INET, "10.9.0.2", &from.sin_addr);
    control.message.msg_name = &from;
    control.message.msg_namelen = sizeof(from);
    // Latch 7 is 10.9.0.2's, under the tag 0x10000.
    wire::LatchSlot& slot = table->slots[wire::PlaceOfTag(1, 0x10000, 0)];
    slot.cookie = 1;
    slot.latch = 7;
    slot.what = wire::WhatOf(wire::LatchSlotKind::kTag, 0, AF_INET, 0, 0x10000);
    uint64_t address = 0;
    std::memcpy(&address, &from.sin_addr, 4);
    slot.address[0] = address;
  }
  void Name(size_t room = 2048) {
    cmsghdr* mark = MarkOf(control.message);
    REQUIRE(mark != nullptr);
    Room whole = RoomOf(control.message);
    whole.name = sizeof(from);
    whole.control = static_cast<uint16_t>(room);
    NameLatch(*table, 1, wants, *mark, whole, control.message);
  }
};

TEST_CASE("The latch takes the mark's place, and all else keeps its own") {
  Received received;
  received.control.AddNumber(SOL_SOCKET, SO_RXQ_OVFL, 3);
  received.control.AddNumber(SOL_SOCKET, SO_MARK, 0x10000 | 0x42);
  received.control.AddNumber(SOL_IP, IP_TTL, 64);
  const size_t size = received.control.message.msg_controllen;
  received.Name();
  CHECK(Told(received.control.message) == "1/40/4=3 " + kOurs + "7 0/2/4=64 ");
  CHECK(received.control.message.msg_controllen == size);
  CHECK(received.control.message.msg_flags == 0);
}

TEST_CASE("Where no latch is known it is 0: another tag, none, another place, no name") {
  Received received;
  uint32_t mark = 0x10000;
  SECTION("another tag") { mark = 0x20000; }
  SECTION("in clear") { mark = 0x42; }
  SECTION("from elsewhere") { received.from.sin_addr.s_addr ^= htonl(1); }
  SECTION("an address cut short") {
    received.control.message.msg_namelen = sizeof(sockaddr_in6);
    received.from.sin_addr.s_addr ^= htonl(1);
  }
  received.control.AddNumber(SOL_SOCKET, SO_MARK, mark);
  received.Name();
  const bool unnamed = received.control.message.msg_namelen != sizeof(received.from);
  // Without a name it is the one whose tag it is, which leaves no doubt here.
  CHECK(Told(received.control.message) == kOurs + (unnamed ? "7 " : "0 "));
}

TEST_CASE("What comes over a connection is of its latch") {
  Received received;
  received.wants.latch = 9;
  received.control.AddNumber(SOL_SOCKET, SO_MARK, 0);
  received.Name();
  CHECK(Told(received.control.message) == kOurs + "9 ");
}

TEST_CASE("A program that asked for marks, too, has both; without room for that it is told so") {
  Received received;
  received.wants.marks = true;
  received.control.AddNumber(SOL_SOCKET, SO_MARK, 0x10000);
  SECTION("room") {
    received.Name(CMSG_SPACE(4) + CMSG_SPACE(8));
    CHECK(Told(received.control.message) == "1/36/4=65536 " + kOurs + "7 ");
    CHECK(received.control.message.msg_flags == 0);
  }
  SECTION("none") {
    received.Name(CMSG_SPACE(4) + CMSG_SPACE(8) - 1);
    CHECK(Told(received.control.message) == "1/36/4=65536 ");
    CHECK(received.control.message.msg_flags == MSG_CTRUNC);
  }
}

TEST_CASE("Room for a mark is not always room for a latch") {
  Received received;
  received.control.AddNumber(SOL_IP, IP_TTL, 64);
  received.control.AddNumber(SOL_SOCKET, SO_MARK, 0x10000);
  received.control.message.msg_controllen -= CMSG_SPACE(4) - CMSG_LEN(4);
  received.Name();
  CHECK(Told(received.control.message) == "0/2/4=64 ");
  CHECK(received.control.message.msg_flags == MSG_CTRUNC);
}

TEST_CASE("What is sent is sent without it: alone, first, last, in between") {
  Control control;
  Unnamed unnamed;
  const std::string ttl = "0/2/4=64 ";
  const std::string tos = "0/1/4=8 ";
  std::string left;
  const int before = GENERATE(0, 1, 2);
  const int behind = GENERATE(0, 1);
  for (int i = 0; i < before; ++i, left += ttl) control.AddNumber(SOL_IP, IP_TTL, 64);
  control.AddLatch(7);
  for (int i = 0; i < behind; ++i, left += tos) control.AddNumber(SOL_IP, IP_TOS, 8);
  const std::string whole = Told(control.message);
  CHECK(NamesLatch(control.message));
  REQUIRE(unnamed.Take(control.message) == 0);
  CHECK(unnamed.latch() == 7);
  CHECK(Told(unnamed.message()) == left);
  CHECK_FALSE(NamesLatch(unnamed.message()));
  CHECK(Told(control.message) == whole);  // the program's own is as it was
}

TEST_CASE("Two of them, another size, or control data that are none: EINVAL; too many: ENOBUFS") {
  Control control;
  Unnamed unnamed;
  int error = EINVAL;
  SECTION("two") {
    control.AddLatch(7);
    control.AddLatch(7);
  }
  SECTION("short") {
    const uint32_t number = 7;
    control.Add(SOL_LATCHKEY, LATCHKEY_LATCH, &number, sizeof(number));
  }
  SECTION("malformed") {
    control.AddLatch(7);
    control.AddNumber(SOL_IP, IP_TTL, 64);
    reinterpret_cast<cmsghdr*>(control.octets + CMSG_SPACE(8))->cmsg_len = 3;
  }
  SECTION("too many") {
    const char octets[Unnamed::kMostControl] = {};
    control.AddNumber(SOL_IP, IP_TTL, 64);
    control.AddLatch(7);
    control.Add(SOL_IP, IP_RETOPTS, octets, sizeof(octets));
    error = ENOBUFS;
  }
  CHECK(unnamed.Take(control.message) == error);
}

TEST_CASE("Another level's cmsg of that number is none of ours") {
  Control control;
  CHECK_FALSE(NamesLatch(control.message));
  control.AddNumber(SOL_SOCKET, LATCHKEY_LATCH, 7);
  CHECK_FALSE(NamesLatch(control.message));
  CHECK(MarkOf(control.message) == nullptr);
}

}  // namespace
}  // namespace latchkey::shim
