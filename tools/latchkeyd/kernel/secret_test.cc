#include "tools/latchkeyd/kernel/secret.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

namespace latchkey::broker {
namespace {

std::string Write(const std::string& text, mode_t mode) {
  const char* directory = std::getenv("TEST_TMPDIR");
  const std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/secret";
  unlink(path.c_str());
  std::ofstream(path) << text;
  REQUIRE(chmod(path.c_str(), mode) == 0);
  return path;
}

TEST_CASE("A secret file is read octet by octet") {
  const std::string text = "sixteen octets!\n";
  const Result<Secret> secret = ReadSecretFile(Write(text, 0600));
  REQUIRE(secret);
  CHECK(std::ranges::equal(secret->octets(), text,
                           [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }));
  CHECK(ReadSecretFile(Write(std::string(4096, 'x'), 0400)));
}

TEST_CASE("Files that are too short, too long or open to others are refused") {
  CHECK_FALSE(ReadSecretFile(Write(std::string(15, 'x'), 0600)));
  CHECK_FALSE(ReadSecretFile(Write(std::string(4097, 'x'), 0600)));
  for (const mode_t mode : {0640, 0604, 0620, 0644, 0610}) {
    CHECK_FALSE(ReadSecretFile(Write(std::string(16, 'x'), mode)));
  }
  const std::string path = Write(std::string(16, 'x'), 0600);
  REQUIRE(chown(path.c_str(), 1, 1) == 0);  // needs root
  CHECK_FALSE(ReadSecretFile(path));
  CHECK_FALSE(ReadSecretFile("/dev/zero"));
  CHECK_FALSE(ReadSecretFile(path + ".none"));
}

}  // namespace
}  // namespace latchkey::broker
