#include "tools/latchkeyd/server/system_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

namespace latchkey::broker {
namespace {

TEST_CASE("The guard bit is the mask's top bit") {
  CHECK(GuardBit(0xffff0000) == 0x80000000U);
  CHECK(GuardBit(0x00ff0000) == 0x00800000U);
  CHECK(GuardBit(1) == 1U);
  CHECK(TagMask(0xffff0000) == 0x7fff0000U);
  CHECK(TagMask(1) == 0U);
}

TEST_CASE("The file must be root's alone to write; none at all is no error") {
  char name[] = "/tmp/system_file_test.XXXXXX";
  const std::string directory = mkdtemp(name);
  const std::string path = directory + "/system.toml";
  REQUIRE(ReadSystemFile(path));
  CHECK(ReadSystemFile(path)->mark_mask == 0xffff0000);
  std::ofstream(path) << "latchkey = 1\nmark_mask = 0xff\n";
  REQUIRE(chmod(path.c_str(), 0644) == 0);
  if (geteuid() == 0) CHECK(ReadSystemFile(path)->mark_mask == 0xffU);
  REQUIRE(chmod(path.c_str(), 0664) == 0);
  CHECK_FALSE(ReadSystemFile(path));
  REQUIRE(chmod(path.c_str(), 0646) == 0);
  CHECK_FALSE(ReadSystemFile(path));
  CHECK_FALSE(ReadSystemFile(directory));
  REQUIRE(chmod(path.c_str(), 0644) == 0);
  std::ofstream(path) << "latchkey = 2\nnonsense = 1\n";
  if (geteuid() == 0) {
    const Result<policy::SystemPolicy> read = ReadSystemFile(path);
    REQUIRE_FALSE(read);
    CHECK(read.error().reason == Reason::kBadPolicy);
    CHECK(read.error().value.find("system.toml:1:12: ") != std::string::npos);
    CHECK(read.error().value.find("system.toml:2:1: ") != std::string::npos);
  }
  unlink(path.c_str());
  rmdir(directory.c_str());
}

}  // namespace
}  // namespace latchkey::broker
