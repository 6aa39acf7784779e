#include "tools/latchkey/environment.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>

namespace latchkey::tool {
namespace {

constexpr char kShim[] = "/opt/lib/latchkey/liblatchkey.so";

std::vector<std::string> Build(std::vector<const char*> inherited) {
  inherited.push_back(nullptr);
  std::array<uint8_t, 32> token{};
  token[0] = 0xa0;
  token[31] = 0x0f;
  return LatchedEnvironment(inherited.data(), kShim, "/run/x.sock", token);
}

bool Has(const std::vector<std::string>& environment, const std::string& entry) {
  return std::count(environment.begin(), environment.end(), entry) == 1;
}

std::string Preload(const char* before) {
  const auto environment = Build({before});
  REQUIRE(environment.size() == 3);
  return environment[0];
}

TEST_CASE("Names the shim, the socket and the token, and keeps the rest in order") {
  const auto environment = Build({"B=2", "A=1", "LD_PRELOADED=x", "LATCHKEY_DEBUG=1"});
  REQUIRE(environment.size() == 7);
  CHECK(environment[0] == "B=2");
  CHECK(environment[1] == "A=1");
  CHECK(environment[2] == "LD_PRELOADED=x");
  CHECK(environment[3] == "LATCHKEY_DEBUG=1");
  CHECK(Has(environment, std::string("LD_PRELOAD=") + kShim));
  CHECK(Has(environment, "LATCHKEY_SOCKET=/run/x.sock"));
  CHECK(Has(environment, "LATCHKEY_TOKEN=a0" + std::string(60, '0') + "0f"));
}

TEST_CASE("An outer session's variables do not reach the program") {
  const auto environment = Build({"LATCHKEY_TOKEN=00", "LATCHKEY_SOCKET=/other",
                                  "LATCHKEY_POLICY=/p.toml", "LATCHKEY_TOKEN=11"});
  CHECK(environment.size() == 3);
}

TEST_CASE("The shim comes first and once") {
  const std::string shim = std::string("LD_PRELOAD=") + kShim;
  CHECK(Preload("LD_PRELOAD=") == shim);
  CHECK(Preload("LD_PRELOAD=/a.so") == shim + ":/a.so");
  CHECK(Preload("LD_PRELOAD=/a.so /b.so:c.so") == shim + ":/a.so:/b.so:c.so");
  CHECK(Preload((shim + ":/a.so").c_str()) == shim + ":/a.so");
  CHECK(Preload("LD_PRELOAD=/a.so:/usr/lib/latchkey/liblatchkey.so::/b.so") ==
        shim + ":/a.so:/b.so");
  CHECK(Preload("LD_PRELOAD=liblatchkey.so") == shim);
}

TEST_CASE("What the loader would split cannot be preloaded") {
  CHECK(CanPreload("/usr/lib/latchkey/liblatchkey.so"));
  CHECK_FALSE(CanPreload("/home/a user/liblatchkey.so"));
  CHECK_FALSE(CanPreload("/home/a:b/liblatchkey.so"));
  CHECK_FALSE(CanPreload("/home/$LIB/liblatchkey.so"));
  CHECK_FALSE(CanPreload("lib/liblatchkey.so"));
  CHECK_FALSE(CanPreload(""));
}

}  // namespace
}  // namespace latchkey::tool
