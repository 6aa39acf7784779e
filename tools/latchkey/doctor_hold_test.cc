#include "tools/latchkey/doctor_hold.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace latchkey::tool {
namespace {

namespace fs = std::filesystem;

// A /proc of processes that never were.
struct Proc {
  fs::path top;

  Proc() {
    const char* base = std::getenv("TEST_TMPDIR");
    std::string name = std::string(base != nullptr ? base : "/tmp") + "/procXXXXXX";
    REQUIRE(mkdtemp(name.data()) != nullptr);
    top = name;
    fs::create_directories(top / "self/ns");
    fs::create_symlink("net:[1]", top / "self/ns/net");
    fs::create_directories(top / "sys");
  }
  ~Proc() { fs::remove_all(top); }
  Proc(const Proc&) = delete;
  Proc& operator=(const Proc&) = delete;

  void Add(const std::string& pid, const std::string& program, const std::string& netns,
           const std::string& file) const {
    fs::create_directories(top / pid / "ns");
    fs::create_directories(top / pid / "fd");
    fs::create_symlink(netns, top / pid / "ns/net");
    fs::create_symlink("/dev/null", top / pid / "fd/0");
    fs::create_symlink(file, top / pid / "fd/7");
    std::ofstream(top / pid / "comm") << program << "\n";
  }
};

TEST_CASE("A broker that cannot hold packets back is told of, one elsewhere is not") {
  const Proc proc;
  proc.Add("11", "latchkeyd", "net:[1]", "/proc/sys/net/core/xfrm_larval_drop");
  proc.Add("9", "latchkeyd", "net:[1]", "/proc/sys/net/core/xfrm_acq_expires");
  proc.Add("12", "latchkeyd", "net:[2]", "/nowhere");
  proc.Add("13", "other", "net:[1]", "/nowhere");
  const std::string text = FindingsText(HoldFindings(ReadHolds(proc.top)));
  CAPTURE(text);
  CHECK(text.starts_with("BAD   latchkeyd (process 9) may not write "));
  CHECK(
      text.ends_with("\nok    latchkeyd (process 11) can hold packets back while their SA is "
                     "made\n"));
}

TEST_CASE("No broker, and no /proc, is no finding") {
  CHECK(ReadHolds(Proc().top).empty());
  CHECK(ReadHolds("/nowhere/at/all").empty());
  CHECK(HoldFindings({}).empty());
}

}  // namespace
}  // namespace latchkey::tool
