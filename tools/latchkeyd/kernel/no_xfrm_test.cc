#include "tools/latchkeyd/kernel/no_xfrm.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "tools/latchkeyd/kernel/test_netns.h"

namespace latchkey::broker {
namespace {

namespace fs = std::filesystem;

// Settings as /proc/sys/net shows them.
struct Settings {
  std::string path = "no_xfrm." + std::to_string(getpid());
  ~Settings() { fs::remove_all(path); }
  void Set(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(path + "/" + name).parent_path());
    std::ofstream(path + "/" + name) << text;
  }
};

bool Write(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.flush();
  return file.good();
}

TEST_CASE("Whoever has a setting is named, loopback and the default for new ones apart") {
  const Settings settings;
  for (const std::string device : {"all", "default", "lo", "eth0", "eth0.7", "wan"}) {
    settings.Set("ipv4/conf/" + device + "/disable_xfrm", "0\n");
    settings.Set("ipv4/conf/" + device + "/disable_policy", "0\n");
    settings.Set("ipv6/conf/" + device + "/disable_policy", "0\n");
  }
  Result<NoXfrm> found = ReadNoXfrm(settings.path);
  REQUIRE(found);
  CHECK(*found == NoXfrm{});
  for (const std::string device : {"default", "lo", "eth0", "eth0.7"}) {
    settings.Set("ipv4/conf/" + device + "/disable_xfrm", "1\n");
  }
  settings.Set("ipv4/conf/wan/disable_policy", "2\n");
  settings.Set("ipv6/conf/all/disable_policy", "-1\n");
  found = ReadNoXfrm(settings.path);
  REQUIRE(found);
  CHECK(found->out == std::set<std::string>{"eth0", "eth0.7"});
  CHECK(found->In(Family::kV4) == std::set<std::string>{"wan"});
  CHECK(found->In(Family::kV6) == std::set<std::string>{"all"});
}

TEST_CASE("What cannot be read is an error, and no IPv6 is none") {
  const Settings settings;
  CHECK_FALSE(ReadNoXfrm(settings.path));
  settings.Set("ipv4/conf/all/disable_xfrm", "1\n");
  const Result<NoXfrm> found = ReadNoXfrm(settings.path);
  REQUIRE(found);
  CHECK(found->out == std::set<std::string>{"all"});
}

TEST_CASE("As the running kernel has it") {
  TestNetns netns;
  Result<NoXfrm> found = ReadNoXfrm();
  REQUIRE(found);
  CHECK(*found == NoXfrm{});  // although loopback has them
  REQUIRE(Write("/proc/sys/net/ipv4/conf/all/disable_xfrm", "1"));
  REQUIRE(Write("/proc/sys/net/ipv4/conf/all/disable_policy", "1"));
  found = ReadNoXfrm();
  REQUIRE(found);
  CHECK(found->out == std::set<std::string>{"all"});
  CHECK(found->In(Family::kV4) == std::set<std::string>{"all"});
  REQUIRE(Write("/proc/sys/net/ipv4/conf/all/disable_xfrm", "0"));
  REQUIRE(Write("/proc/sys/net/ipv4/conf/all/disable_policy", "0"));
  found = ReadNoXfrm();
  REQUIRE(found);
  CHECK(*found == NoXfrm{});
}

}  // namespace
}  // namespace latchkey::broker
