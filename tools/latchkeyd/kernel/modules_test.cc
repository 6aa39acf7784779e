#include "tools/latchkeyd/kernel/modules.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <string>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

std::string Directory() {
  const char* directory = std::getenv("TEST_TMPDIR");
  return directory != nullptr ? directory : "/tmp";
}

TEST_CASE("Socket policies can be had") {
  TestNetns netns;
  const Result<void> ready = EnsureXfrmUser();
  INFO((ready ? std::string() : ready.error().ToString()));
  CHECK(ready);
}

TEST_CASE("The loader of the setting is run, and its failure told") {
  const std::string program = Directory() + "/loader";
  const std::string setting = Directory() + "/setting";
  const std::string record = Directory() + "/record";
  std::ofstream(program) << "#!/bin/sh\necho \"$@\" > " << record << "\n[ \"$3\" = good ]\n";
  REQUIRE(chmod(program.c_str(), 0755) == 0);
  std::ofstream(setting) << program << "\n";
  CHECK(LoadModule("good", setting));
  std::string arguments;
  std::ifstream file(record);
  std::getline(file, arguments);
  CHECK(arguments == "-q -- good");
  CHECK_FALSE(LoadModule("bad", setting));
  std::ofstream(program) << "#!/bin/sh\nprintf '%s\\n' \"$*\" > " << record
                         << "\n[ \"$4\" = good ]\n";
  CHECK(CanLoadModule("good", setting));
  std::ifstream again(record);
  std::getline(again, arguments);
  CHECK(arguments == "-n -q -- good");
  CHECK_FALSE(CanLoadModule("bad", setting));
  std::ofstream(setting) << Directory() << "/nowhere\n";
  CHECK_FALSE(LoadModule("good", setting));
}

}  // namespace
}  // namespace latchkey::broker
