#include "tools/latchkeyd/kernel/larval_hold.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

namespace latchkey::broker {
namespace {

struct File {
  std::string path = "larval_drop." + std::to_string(getpid());
  explicit File(const char* text) { std::ofstream(path) << text; }
  ~File() { unlink(path.c_str()); }
  std::string Text() const {
    std::string text;
    std::ifstream(path) >> text;
    return text;
  }
};

TEST_CASE("Switched while it is wanted, then given back") {
  const File file("1\n");
  LarvalHold hold({}, file.path);
  CHECK(file.Text() == "1");
  CHECK(hold.Set(true));
  CHECK(file.Text() == "0");
  CHECK(hold.Set(true));
  CHECK(hold.Set(false));
  CHECK(file.Text() == "1");
  CHECK(hold.Set(false));
  {
    LarvalHold brief({}, file.path);
    CHECK(brief.Set(true));
  }
  CHECK(file.Text() == "1");
}

TEST_CASE("What an administrator has switched off stays so") {
  const File file("0\n");
  LarvalHold hold({}, file.path);
  CHECK(hold.Set(true));
  CHECK(hold.Set(false));
  CHECK(file.Text() == "0");
}

TEST_CASE("A kernel without it holds nothing") {
  LarvalHold hold({}, "/nowhere/at/all");
  CHECK_FALSE(hold.Set(true));
  CHECK_FALSE(hold.Set(false));
  CHECK(hold.Complaint().starts_with("/nowhere/at/all: No such file or directory: "));
}

TEST_CASE("What may only be read is complained of") {
  const File file("1\n");
  REQUIRE(chmod(file.path.c_str(), 0444) == 0);
  const LarvalHold hold({}, file.path);
  // Root may write it all the same.
  CHECK(hold.Complaint().empty() == (access(file.path.c_str(), W_OK) == 0));
}

TEST_CASE("What a killed broker has switched is given back by the next") {
  const File file("1\n");
  const std::string mark = file.path + ".mark";
  {
    LarvalHold killed(mark, file.path);
    REQUIRE(killed.Set(true));
    CHECK(access(mark.c_str(), F_OK) == 0);
    // It never comes to its end.
    std::ofstream(file.path) << "0\n";
    REQUIRE(rename(mark.c_str(), (mark + ".kept").c_str()) == 0);
  }
  std::ofstream(file.path) << "0\n";
  REQUIRE(rename((mark + ".kept").c_str(), mark.c_str()) == 0);
  LarvalHold next(mark, file.path);
  CHECK(file.Text() == "1");
  CHECK(access(mark.c_str(), F_OK) != 0);
  // And switches it anew.
  CHECK(next.Set(true));
  CHECK(access(mark.c_str(), F_OK) == 0);
  CHECK(next.Set(false));
  CHECK(access(mark.c_str(), F_OK) != 0);
}

TEST_CASE("Where no mark can be made nothing is switched") {
  const File file("1\n");
  LarvalHold hold("/nowhere/at/all", file.path);
  CHECK_FALSE(hold.Set(true));
  CHECK(file.Text() == "1");
}

TEST_CASE("What an administrator has switched off bears no mark") {
  const File file("0\n");
  const std::string mark = file.path + ".mark";
  LarvalHold hold(mark, file.path);
  CHECK(hold.Set(true));
  CHECK(access(mark.c_str(), F_OK) != 0);
}

}  // namespace
}  // namespace latchkey::broker
