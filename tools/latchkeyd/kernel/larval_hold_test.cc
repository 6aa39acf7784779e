#include "tools/latchkeyd/kernel/larval_hold.h"

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
  LarvalHold hold(file.path);
  CHECK(file.Text() == "1");
  CHECK(hold.Set(true));
  CHECK(file.Text() == "0");
  CHECK(hold.Set(true));
  CHECK(hold.Set(false));
  CHECK(file.Text() == "1");
  CHECK(hold.Set(false));
  {
    LarvalHold brief(file.path);
    CHECK(brief.Set(true));
  }
  CHECK(file.Text() == "1");
}

TEST_CASE("What an administrator has switched off stays so") {
  const File file("0\n");
  LarvalHold hold(file.path);
  CHECK(hold.Set(true));
  CHECK(hold.Set(false));
  CHECK(file.Text() == "0");
}

TEST_CASE("A kernel without it holds nothing") {
  LarvalHold hold("/nowhere/at/all");
  CHECK_FALSE(hold.Set(true));
  CHECK_FALSE(hold.Set(false));
}

}  // namespace
}  // namespace latchkey::broker
