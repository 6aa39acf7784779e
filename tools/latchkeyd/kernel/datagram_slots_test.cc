#include "tools/latchkeyd/kernel/datagram_slots.h"

#include <bpf/bpf.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <string>

#include "tools/latchkeyd/kernel/datagram_maps.h"
#include "tools/latchkeyd/kernel/datagram_test_socket.h"
#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

constexpr uint32_t kMask = 0xffff0000;
constexpr uint32_t kTag = 0x00070000;

// Another tag whose slot is the same.
uint32_t Neighbour(uint32_t tag) {
  for (uint32_t other = 1; other <= 0xffff; ++other) {
    const uint32_t its = other << 16;
    if (its != tag && latchkey_slot_of(its) == latchkey_slot_of(tag)) return its;
  }
  return 0;
}

// Sockets with the program on them, and its maps as they are.
struct Rig {
  TestNetns netns;
  Result<DatagramMaps> maps = LoadDatagramMaps("");
  TestUdp us{"0.0.0.0"};
  TestUdp them{"::"};

  Rig() {
    REQUIRE(maps);
    const uint32_t zero = 0;
    const latchkey_settings settings{kMask};
    REQUIRE(bpf_map_update_elem(maps->settings.get(), &zero, &settings, BPF_ANY) == 0);
    for (const TestUdp* socket : {&us, &them}) {
      const int fd = socket->fd();
      const uint64_t cookie = socket->cookie();
      const latchkey_held held{1};
      REQUIRE(bpf_map_update_elem(maps->held.get(), &cookie, &held, BPF_ANY) == 0);
      const int program = maps->program.get();
      REQUIRE(setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)) == 0);
    }
  }
  AdmissionMaps both() const { return {maps->admitted.get(), maps->slots.get()}; }
  static latchkey_admitted_key Key(const TestUdp& socket, const std::string& from, uint32_t tag,
                                   uint16_t port = 0) {
    const Address address = Address::Parse(from).value();
    latchkey_admitted_key key{};
    key.cookie = socket.cookie();
    key.tag = tag;
    key.port = port;
    key.family = address.family == Family::kV4 ? LATCHKEY_V4 : LATCHKEY_V6;
    std::memcpy(key.address, address.octets.data(), sizeof(key.address));
    return key;
  }
  latchkey_slot Slot(uint32_t tag) const {
    const uint32_t index = latchkey_slot_of(tag);
    latchkey_slot slot{};
    REQUIRE(bpf_map_lookup_elem(maps->slots.get(), &index, &slot) == 0);
    return slot;
  }
  void Set(uint32_t tag, const latchkey_slot& slot) const {
    const uint32_t index = latchkey_slot_of(tag);
    REQUIRE(bpf_map_update_elem(maps->slots.get(), &index, &slot, BPF_ANY) == 0);
  }
  bool Has(const latchkey_admitted_key& key) const {
    const latchkey_slot slot = Slot(key.tag);
    return slot.turn % 2 == 0 && std::memcmp(&slot.admission, &key, sizeof(key)) == 0;
  }
  bool Comes(const TestUdp& to, const std::string& from, uint32_t tag, uint16_t port = 0) const {
    const bool v6 = from.find(':') != std::string::npos;
    TestUdp(from, false, port).Send(to, v6 ? "::1" : "127.0.0.1", "x", tag);
    return to.Take() == "x";
  }
};

TEST_CASE("The program takes in what a slot has, and that alone") {
  const Rig rig;
  rig.Set(kTag, {4, Rig::Key(rig.us, "127.0.0.1", kTag)});
  CHECK(rig.Comes(rig.us, "127.0.0.1", kTag));
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.1", 0));
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.1", Neighbour(kTag)));
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.2", kTag));
  CHECK_FALSE(rig.Comes(rig.them, "127.0.0.1", kTag));
  rig.Set(kTag, {6, Rig::Key(rig.them, "::1", kTag)});
  CHECK(rig.Comes(rig.them, "::1", kTag));
  CHECK_FALSE(rig.Comes(rig.them, "fd00::1", kTag));
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.1", kTag));
}

TEST_CASE("A slot that is being written has nothing") {
  const Rig rig;
  rig.Set(kTag, {5, Rig::Key(rig.us, "127.0.0.1", kTag)});
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.1", kTag));
}

TEST_CASE("Of those who share a slot the first has it, all come in, and each leaves alone") {
  const Rig rig;
  const uint32_t other = Neighbour(kTag);
  REQUIRE(other != 0);
  const latchkey_admitted_key keys[] = {
      Rig::Key(rig.us, "127.0.0.1", kTag), Rig::Key(rig.us, "127.0.0.2", kTag),
      Rig::Key(rig.them, "127.0.0.1", kTag), Rig::Key(rig.us, "127.0.0.1", other),
      Rig::Key(rig.us, "127.0.0.3", kTag, 5000)};
  for (const auto& key : keys) REQUIRE(PutAdmission(rig.both(), key));
  CHECK(rig.Has(keys[0]));
  const auto come = [&] {
    std::string which;
    if (rig.Comes(rig.us, "127.0.0.1", kTag)) which += '0';
    if (rig.Comes(rig.us, "127.0.0.2", kTag)) which += '1';
    if (rig.Comes(rig.us, "127.0.0.1", other)) which += '3';
    if (rig.Comes(rig.us, "127.0.0.3", kTag, 5000)) which += '4';
    return which;
  };
  CHECK(come() == "0134");
  CHECK(EraseAdmission(rig.both(), keys[1]));
  CHECK(rig.Has(keys[0]));
  CHECK(come() == "034");
  CHECK(EraseAdmission(rig.both(), keys[0]));
  CHECK(rig.Slot(kTag).admission.cookie == 0);
  CHECK(come() == "34");
  // Free again: the next to come.
  REQUIRE(PutAdmission(rig.both(), keys[1]));
  CHECK(rig.Has(keys[1]));
  CHECK(come() == "134");
  CHECK(EraseAdmission(rig.both(), keys[4]));
  CHECK(come() == "13");
  CHECK(EraseAdmission(rig.both(), keys[3]));
  CHECK(EraseAdmission(rig.both(), keys[1]));
  CHECK(EraseAdmission(rig.both(), keys[1]));
  CHECK(come().empty());
}

TEST_CASE("What cannot be taken away is not said to be") {
  const Rig rig;
  const latchkey_admitted_key key = Rig::Key(rig.us, "127.0.0.1", kTag);
  REQUIRE(PutAdmission(rig.both(), key));
  CHECK_FALSE(EraseAdmission({-1, rig.both().slots}, key));
  CHECK(EraseAdmission(rig.both(), key));
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.1", kTag));
}

TEST_CASE("What a broker was killed over is taken over, or taken away") {
  const Rig rig;
  const latchkey_admitted_key mine = Rig::Key(rig.us, "127.0.0.1", kTag);
  rig.Set(kTag, {7, Rig::Key(rig.us, "127.0.0.9", kTag)});
  REQUIRE(PutAdmission(rig.both(), mine));
  CHECK(rig.Has(mine));
  CHECK(rig.Slot(kTag).turn == 8);
  rig.Set(kTag, {9, mine});
  CHECK(EraseAdmission(rig.both(), mine));
  CHECK(rig.Slot(kTag).turn == 10);
  CHECK_FALSE(rig.Comes(rig.us, "127.0.0.1", kTag));
}

}  // namespace
}  // namespace latchkey::broker
