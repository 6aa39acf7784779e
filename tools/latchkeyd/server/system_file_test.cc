#include "tools/latchkeyd/server/system_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

namespace latchkey::broker {
namespace {

std::string ErrorOf(const std::string& text) {
  const Result<uint32_t> read = ParseSystemFile(text, "system.toml");
  return read ? "no error" : read.error().value;
}

TEST_CASE("Version and mark mask are read") {
  CHECK(ParseSystemFile("latchkey = 1\n", "s") == kDefaultMarkMask);
  CHECK(ParseSystemFile("latchkey = 1\nmark_mask = 0x00ff0000\n", "s") == 0x00ff0000U);
  CHECK(ParseSystemFile("mark_mask = 0xffffffff\nlatchkey = 1\n", "s") == 0xffffffffU);
  CHECK(GuardBit(kDefaultMarkMask) == 0x80000000U);
  CHECK(GuardBit(0x00ff0000) == 0x00800000U);
  CHECK(GuardBit(1) == 1U);
}

TEST_CASE("Everything else is refused, with its place") {
  CHECK(ErrorOf("latchkey = 1\nsuites = []\n").find("\"suites\" is not supported yet") !=
        std::string::npos);
  CHECK(ErrorOf("latchkey = 1\n[[rule]]\naction = \"protect\"\n").find("\"rule\"") !=
        std::string::npos);
  CHECK(ErrorOf("latchkey = 1\nmark_mask = 0\n").starts_with("system.toml:2:"));
  CHECK(ErrorOf("latchkey = 1\nmark_mask = -1\n").find("expected 1 to") != std::string::npos);
  CHECK(ErrorOf("latchkey = 1\nmark_mask = 0x100000000\n").find("expected 1") != std::string::npos);
  CHECK(ErrorOf("latchkey = 1\nmark_mask = 0x50000000\n").find("side by side") !=
        std::string::npos);
  CHECK(ErrorOf("latchkey = 1\nmark_mask = \"0xff\"\n").starts_with("system.toml:2:"));
  CHECK(ErrorOf("latchkey = 2\n").find("version 1") != std::string::npos);
  CHECK(ErrorOf("latchkey = 1.0\n").find("version 1") != std::string::npos);
  CHECK(ErrorOf("").find("expected latchkey = 1") != std::string::npos);
  CHECK(ErrorOf("latchkey = \n").starts_with("system.toml:1:"));
  CHECK(ErrorOf("latchkey = 1\nlatchkey = 1\n").starts_with("system.toml:2:"));
}

TEST_CASE("The file must be root's alone to write; none at all is no error") {
  char name[] = "/tmp/system_file_test.XXXXXX";
  const std::string directory = mkdtemp(name);
  const std::string path = directory + "/system.toml";
  CHECK(ReadSystemFile(path) == kDefaultMarkMask);
  std::ofstream(path) << "latchkey = 1\nmark_mask = 0xff\n";
  REQUIRE(chmod(path.c_str(), 0644) == 0);
  if (geteuid() == 0) CHECK(ReadSystemFile(path) == 0xffU);
  REQUIRE(chmod(path.c_str(), 0664) == 0);
  CHECK_FALSE(ReadSystemFile(path));
  REQUIRE(chmod(path.c_str(), 0646) == 0);
  CHECK_FALSE(ReadSystemFile(path));
  CHECK_FALSE(ReadSystemFile(directory));
  unlink(path.c_str());
  rmdir(directory.c_str());
}

}  // namespace
}  // namespace latchkey::broker
