#include "shim/handover.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace latchkey::shim {
namespace {

using Strings = std::vector<std::string>;

const std::string kLibrary = "/opt/lk/liblatchkey.so";
const std::string kToken = std::string(63, 'a') + "0";
const std::string kOurs = "LD_PRELOAD=" + kLibrary;
const std::string kOurSocket = "LATCHKEY_SOCKET=/run/s";
const std::string kOurToken = "LATCHKEY_TOKEN=" + kToken;

std::vector<char*> Pointers(Strings& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Returns what becomes of the environment; {"whole"} when nothing is missing.
Strings After(Strings strings) {
  const std::vector<char*> environment = Pointers(strings);
  const Inventory inventory = TakeInventory(environment.data());
  if (inventory.whole) return {"whole"};
  if (inventory.large) return {"large"};
  std::vector<char*> room(inventory.size / sizeof(char*) + 2);
  auto* const begin = reinterpret_cast<char*>(room.data());
  begin[inventory.size] = 'E';
  Strings made;
  for (char* const* at = Complete(environment.data(), inventory, begin); *at != nullptr; ++at) {
    made.emplace_back(*at);
  }
  CHECK(begin[inventory.size] == 'E');
  return made;
}

TEST_CASE("before anything is known nothing is missing") {
  SetHandover("", nullptr, nullptr, nullptr);
  CHECK(After({}) == Strings{"whole"});
  SetHandover("relative.so", nullptr, nullptr, nullptr);
  CHECK(After({}) == Strings{"whole"});
  SetHandover("/with a blank.so", nullptr, nullptr, nullptr);
  CHECK(After({}) == Strings{"whole"});
}

TEST_CASE("what is missing is put in, the rest stays as it is") {
  SetHandover(kLibrary.c_str(), "/run/s", kToken.c_str(), "/etc/p.toml");
  CHECK(After({kOurs, kOurSocket, kOurToken}) == Strings{"whole"});
  CHECK(After({"A=1", kOurToken, "B", kOurSocket, kOurs, "LD_DEBUG=x"}) == Strings{"whole"});
  CHECK(After({}) == Strings{kOurs, kOurSocket, kOurToken});
  CHECK(
      After({"A=1", "LATCHKEY_DEBUG=1", "B", "LD_PRELOADED=1", ""}) ==
      Strings{kOurs, "A=1", "LATCHKEY_DEBUG=1", "B", "LD_PRELOADED=1", "", kOurSocket, kOurToken});
  CHECK(After({kOurs, kOurSocket, "Z=1"}) == Strings{kOurs, kOurSocket, "Z=1", kOurToken});
  CHECK(After({"Z=1", kOurToken, kOurs}) == Strings{kOurs, "Z=1", kOurToken, kOurSocket});
}

TEST_CASE("the program's own preloads are kept behind ours, other shims of Latchkey are not") {
  SetHandover(kLibrary.c_str(), nullptr, nullptr, nullptr);
  CHECK(After({"LD_PRELOAD=/a.so " + kLibrary + ":b.so"}) == Strings{"whole"});
  CHECK(After({"LD_PRELOAD=/a.so  b.so:"}) == Strings{kOurs + ":/a.so:b.so"});
  CHECK(After({"LD_PRELOAD="}) == Strings{kOurs});
  CHECK(After({"LD_PRELOAD=./liblatchkey.so:x/liblatchkey.so.1"}) ==
        Strings{kOurs + ":x/liblatchkey.so.1"});
  CHECK(After({"LD_PRELOAD=" + kLibrary + ".old"}) == Strings{kOurs + ":" + kLibrary + ".old"});
  // Of two the loader sees one.
  CHECK(After({kOurs, "A=1", "LD_PRELOAD=/a.so"}) == Strings{kOurs + ":/a.so", "A=1"});
}

TEST_CASE("another session stays, a damaged token does not") {
  SetHandover(kLibrary.c_str(), "/run/s", kToken.c_str(), nullptr);
  const std::string other = "LATCHKEY_TOKEN=" + std::string(64, 'b');
  CHECK(After({kOurs, "LATCHKEY_SOCKET=/run/other", other}) == Strings{"whole"});
  for (const std::string& bad : {std::string(), std::string(63, 'a'), std::string(65, 'a'),
                                 std::string(64, 'A'), std::string("none")}) {
    CHECK(After({kOurs, kOurSocket, "LATCHKEY_TOKEN=" + bad}) ==
          Strings{kOurs, kOurSocket, kOurToken});
  }
  CHECK(After({kOurs, "LATCHKEY_SOCKET=", kOurToken}) == Strings{kOurs, kOurToken, kOurSocket});
}

TEST_CASE("without a token it is the policy that is handed over") {
  SetHandover(kLibrary.c_str(), nullptr, nullptr, "/etc/p.toml");
  CHECK(After({}) == Strings{kOurs, "LATCHKEY_POLICY=/etc/p.toml"});
  CHECK(After({kOurs, "LATCHKEY_POLICY=/etc/q.toml"}) == Strings{"whole"});
}

TEST_CASE("no environment at all is an empty one") {
  SetHandover(kLibrary.c_str(), nullptr, nullptr, nullptr);
  const Inventory inventory = TakeInventory(nullptr);
  CHECK_FALSE(inventory.whole);
  std::vector<char*> room(inventory.size / sizeof(char*) + 1);
  char* const* made = Complete(nullptr, inventory, reinterpret_cast<char*>(room.data()));
  CHECK(std::string(made[0]) == kOurs);
  CHECK(made[1] == nullptr);
}

TEST_CASE("what is too large is said to be, unless nothing is missing") {
  SetHandover(kLibrary.c_str(), nullptr, nullptr, nullptr);
  CHECK(After(Strings(8192, "A=1")).size() == 8193);
  CHECK(After(Strings(8193, "A=1")) == Strings{"large"});
  CHECK(After({"LD_PRELOAD=/" + std::string(16384, 'x')}) == Strings{"large"});
  Strings whole(10000, "A=1");
  whole.push_back(kOurs);
  CHECK(After(whole) == Strings{"whole"});
}

TEST_CASE("what cannot be read is left to the kernel") {
  SetHandover(kLibrary.c_str(), nullptr, nullptr, nullptr);
  const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* const mapped =
      mmap(nullptr, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(mapped != MAP_FAILED);
  char* const end = static_cast<char*>(mapped) + size;
  REQUIRE(mprotect(end, size, PROT_NONE) == 0);
  auto** const array = reinterpret_cast<char**>(end) - 1;
  *array = reinterpret_cast<char*>(uintptr_t{8});
  CHECK(TakeInventory(array).whole);
  *array = const_cast<char*>("A=1");  // and the array goes on where nothing is
  CHECK(TakeInventory(array).whole);
  end[-9] = 'L';
  char* entries[] = {end - 9, nullptr};
  std::copy_n("LD_PRELOAD=", 9, end - 9);
  CHECK(TakeInventory(entries).whole);
  munmap(mapped, 2 * size);
}

}  // namespace
}  // namespace latchkey::shim
