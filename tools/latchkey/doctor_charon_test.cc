#include "tools/latchkey/doctor_charon.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "catch2/catch.hpp"
#include "tools/latchkeyd/keymgr/vici/fake_charon.h"

namespace latchkey::tool {
namespace {

using broker::vici::FakeCharon;
using broker::vici::FakeChild;

// Asks a charon that another thread plays.
KeyManagerFacts Ask(FakeCharon& charon, std::chrono::milliseconds patience) {
  KeyManagerFacts facts;
  facts.socket = charon.path();
  charon.Start();
  std::atomic<bool> over = false;
  std::thread player([&] {
    while (!over) {
      charon.Serve();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  ListChildren(facts, patience);
  over = true;
  player.join();
  return facts;
}

TEST_CASE("charon's children are listed with the reqids of their SAs") {
  FakeCharon charon;
  charon.conns = {{}, {}, {}};
  charon.conns[1].name = "to-bob";
  charon.conns[2].name = "shunt";
  charon.conns[2].mode = "PASS";
  charon.sas = {{}, {}};
  charon.sas[1].id = 2;
  charon.sas[1].children = {FakeChild{.id = 2, .reqid = 3, .spi_in = 0x300, .spi_out = 0x400},
                            FakeChild{.id = 3, .reqid = 3, .spi_in = 0x500, .spi_out = 0x600}};
  const KeyManagerFacts facts = Ask(charon, std::chrono::seconds(30));
  REQUIRE(facts.listed);
  REQUIRE(facts.children.size() == 2);
  CHECK(facts.children[0].connection == "to-alice");
  CHECK(facts.children[0].name == "db");
  CHECK(facts.children[0].reqids == std::vector<uint32_t>{70'000, 3});
  CHECK(facts.children[1].connection == "to-bob");
  CHECK(facts.children[1].reqids.empty());
}

TEST_CASE("A child may be up under the IKE_SA of another connection to the same peer") {
  FakeCharon charon;
  charon.conns = {{}, {}};
  charon.conns[1].name = "to-alice-too";
  charon.conns[1].child = "web";
  charon.sas = {{}};
  charon.sas[0].children[0].name = "web";
  const KeyManagerFacts facts = Ask(charon, std::chrono::seconds(30));
  REQUIRE(facts.children.size() == 2);
  CHECK(facts.children[0].reqids.empty());
  CHECK(facts.children[1].reqids == std::vector<uint32_t>{70'000});
}

TEST_CASE("A charon that does not answer, or that knows no such question, lists nothing") {
  FakeCharon charon;
  SECTION("mute") { charon.mute = true; }
  SECTION("of another kind") { charon.unknown_events = {"list-sa"}; }
  CHECK_FALSE(Ask(charon, std::chrono::milliseconds(300)).listed);
}

TEST_CASE("No charon lists nothing") {
  KeyManagerFacts facts;
  facts.socket = "/no/such/socket";
  ListChildren(facts);
  CHECK_FALSE(facts.listed);
}

}  // namespace
}  // namespace latchkey::tool
