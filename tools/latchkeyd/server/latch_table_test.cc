// The table of latches in a page, as it is written and as it is read.
#include "tools/latchkeyd/server/latch_table.h"

#include <arpa/inet.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "policy/model/address.h"
#include "shim/latch_table.h"

namespace latchkey::broker {
namespace {

using wire::LatchSlotKind;

SocketAddress To(const std::string& address, uint16_t port) {
  return {*Address::Parse(address), port};
}

LatchLine SocketLine(uint64_t cookie, uint8_t flags = 0, uint64_t latch = 0) {
  return {LatchSlotKind::kSocket, flags, cookie, latch, 0, {}, 99};
}
LatchLine Tag(uint64_t cookie, uint32_t tag, const std::string& address, uint16_t port,
              uint64_t latch) {
  return {LatchSlotKind::kTag, 0, cookie, latch, tag, To(address, port), 0};
}
LatchLine Stands(uint64_t cookie, uint64_t latch, const std::string& address, uint16_t port,
                 bool established = true) {
  return {LatchSlotKind::kLatch,
          established ? wire::kSlotEstablished : uint8_t{0},
          cookie,
          latch,
          0,
          To(address, port),
          0};
}

struct Book {
  std::unique_ptr<wire::LatchTable> table = std::make_unique<wire::LatchTable>();

  uint64_t Behind(uint64_t cookie, uint32_t tag, const std::string& address, uint16_t port) const {
    const wire::Endpoint remote = ToWire(To(address, port));
    return shim::LatchBehind(*table, cookie, tag, &remote);
  }
  int Under(uint64_t cookie, uint64_t latch, const std::string& address, uint16_t port) const {
    const wire::Endpoint remote = ToWire(To(address, port));
    return shim::SendErrorUnder(*table, cookie, latch, &remote);
  }
};

TEST_CASE("What came under a tag is of the latch of that socket, address and port") {
  Book book;
  REQUIRE(PutLine(*book.table, Tag(1, 0x10000, "10.9.0.2", 0, 7)));
  REQUIRE(PutLine(*book.table, Tag(1, 0x20000, "10.9.0.3", 53, 8)));
  REQUIRE(PutLine(*book.table, Tag(1, 0x30000, "fd00::2", 0, 9)));
  CHECK(book.Behind(1, 0x10000, "10.9.0.2", 4000) == 7);
  CHECK(book.Behind(1, 0x20000, "10.9.0.3", 53) == 8);
  CHECK(book.Behind(1, 0x30000, "fd00::2", 1) == 9);
  CHECK(book.Behind(1, 0x20000, "10.9.0.3", 54) == 0);
  CHECK(book.Behind(1, 0x10000, "10.9.0.3", 4000) == 0);
  CHECK(book.Behind(2, 0x10000, "10.9.0.2", 4000) == 0);
  CHECK(book.Behind(1, 0x40000, "10.9.0.2", 4000) == 0);
  // Where it came from is not known: no guess.
  CHECK(shim::LatchBehind(*book.table, 1, 0x10000, nullptr) == 7);
  CHECK(shim::LatchBehind(*book.table, 1, 0x20000, nullptr) == 0);
  REQUIRE(PutLine(*book.table, Tag(1, 0x10000, "10.9.0.9", 0, 10)));
  CHECK(shim::LatchBehind(*book.table, 1, 0x10000, nullptr) == 0);
  // Put again it is another's; taken out it is nobody's.
  REQUIRE(PutLine(*book.table, Tag(1, 0x10000, "10.9.0.2", 0, 11)));
  CHECK(book.Behind(1, 0x10000, "10.9.0.2", 4000) == 11);
  EraseLine(*book.table, Tag(1, 0x10000, "10.9.0.2", 0, 0));
  CHECK(book.Behind(1, 0x10000, "10.9.0.2", 4000) == 0);
  CHECK(book.table->used == 3);
}

TEST_CASE("Under a latch that is another's, elsewhere, or not established, nothing is sent") {
  Book book;
  PutLine(*book.table, SocketLine(1));
  PutLine(*book.table, Stands(1, 7, "10.9.0.2", 0));
  PutLine(*book.table, Stands(1, 8, "10.9.0.3", 53));
  PutLine(*book.table, Stands(1, 9, "10.9.0.4", 0, false));
  CHECK(book.Under(1, 7, "10.9.0.2", 53) == 0);
  CHECK(book.Under(1, 8, "10.9.0.3", 53) == 0);
  CHECK(book.Under(1, 8, "10.9.0.3", 54) == EPERM);
  CHECK(book.Under(1, 7, "10.9.0.3", 53) == EPERM);
  CHECK(book.Under(2, 7, "10.9.0.2", 53) == EPERM);
  CHECK(book.Under(1, 9, "10.9.0.4", 53) == ECONNRESET);
  CHECK(book.Under(1, 10, "10.9.0.4", 53) == ECONNRESET);
  CHECK(shim::SendErrorUnder(*book.table, 1, 7, nullptr) == EPERM);  // it has no connection
  PutLine(*book.table, SocketLine(1, 0, 7));
  CHECK(shim::SendErrorUnder(*book.table, 1, 7, nullptr) == 0);
  CHECK(shim::SendErrorUnder(*book.table, 1, 8, nullptr) == EPERM);
}

TEST_CASE("A socket says what its program wants; all of it goes with the socket") {
  Book book;
  PutLine(*book.table, SocketLine(1, wire::kSlotKeepMarks, 5));
  PutLine(*book.table, SocketLine(2));
  PutLine(*book.table, Tag(1, 0x10000, "10.9.0.2", 0, 7));
  PutLine(*book.table, Stands(1, 7, "10.9.0.2", 0));
  CHECK(shim::WantsOf(*book.table, 1).latches);
  CHECK(shim::WantsOf(*book.table, 1).marks);
  CHECK(shim::WantsOf(*book.table, 1).latch == 5);
  CHECK_FALSE(shim::WantsOf(*book.table, 2).marks);
  CHECK_FALSE(shim::WantsOf(*book.table, 3).latches);
  EraseLinesOf(*book.table, 1, /*keep=*/true);
  CHECK(book.table->used == 2);
  CHECK(shim::WantsOf(*book.table, 1).latches);
  EraseLinesOf(*book.table, 1, /*keep=*/false);
  CHECK(book.table->used == 1);
  CHECK_FALSE(shim::WantsOf(*book.table, 1).latches);
}

TEST_CASE("While it is changed, and after a broker died over it, nothing is known") {
  Book book;
  PutLine(*book.table, SocketLine(1, wire::kSlotKeepMarks));
  PutLine(*book.table, Stands(1, 7, "10.9.0.2", 0));
  PutLine(*book.table, Tag(1, 0x10000, "10.9.0.2", 0, 7));
  book.table->generation |= 1;
  CHECK(book.Under(1, 7, "10.9.0.2", 53) == ECONNRESET);
  CHECK(book.Behind(1, 0x10000, "10.9.0.2", 1) == 0);
  const std::vector<LatchLine> sockets = TakeSockets(*book.table);
  REQUIRE(sockets.size() == 1);
  CHECK(sockets[0] == SocketLine(1, wire::kSlotKeepMarks));
  CHECK(book.table->used == 0);
  CHECK(book.table->generation % 2 == 0);
  CHECK(book.Under(1, 7, "10.9.0.2", 53) == ECONNRESET);
}

TEST_CASE("Whatever comes and goes, what is in it is found, and nothing else") {
  Book book;
  std::map<LatchLine, uint64_t> model;  // by what makes a line itself
  std::mt19937 random(5660);
  for (int step = 0; step < 60'000; ++step) {
    const uint64_t cookie = random() % 3 + 1;
    const uint32_t tag = (random() % 3000 + 1) << 16;
    const uint16_t port = random() % 2 == 0 ? 0 : 53;
    LatchLine line = Tag(cookie, tag, "10.9.0.2", port, 0);
    if (random() % 2 == 0) {
      const uint64_t latch = random() + 1U;
      LatchLine put = line;
      put.latch = latch;
      const bool room = model.contains(line) || model.size() < wire::kMostLatchSlots;
      REQUIRE(PutLine(*book.table, put) == room);
      if (room) model[line] = latch;
    } else {
      EraseLine(*book.table, line);
      model.erase(line);
    }
    REQUIRE(book.table->used == model.size());
  }
  CHECK(model.size() > 6'000);
  for (const auto& [line, latch] : model) {
    const bool other =
        line.remote.port == 53 && model.contains(Tag(line.cookie, line.tag, "10.9.0.2", 0, 0));
    if (other) continue;  // whatever the port comes first
    CHECK(book.Behind(line.cookie, line.tag, "10.9.0.2", 53) == latch);
  }
}

TEST_CASE("What there is no room for is not put in") {
  Book book;
  for (uint64_t latch = 1; latch <= wire::kMostLatchSlots; ++latch) {
    REQUIRE(PutLine(*book.table, Stands(1, latch, "10.9.0.2", 0)));
  }
  CHECK_FALSE(PutLine(*book.table, Stands(1, 1 << 20, "10.9.0.2", 0)));
  CHECK(PutLine(*book.table, Stands(1, 5, "10.9.0.2", 0, false)));
  CHECK(book.Under(1, 5, "10.9.0.2", 1) == ECONNRESET);
}

}  // namespace
}  // namespace latchkey::broker
