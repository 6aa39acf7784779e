// Programs that the latched one starts with an environment of their own: they belong to the session
// all the same, unless the policy lets them go.
#include <dlfcn.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "shim/testing/fake_broker.h"
#include "shim/testing/harness.h"

namespace latchkey::testing {
namespace {

using wire::Type;

struct World {
  std::string Run(const std::string& name) { return testing::Run(name, broker, server); }

  // Has the policy let the probe go bare.
  void Exempt() {
    // What the kernel says of it: Bazel's is a symbolic link.
    const std::string probe = std::filesystem::canonical(std::getenv("PROBE"));
    std::strncpy(broker.page().drop_preload[1], probe.c_str(), wire::kPathSize - 1);
    std::strncpy(broker.page().drop_preload[0], "/usr/bin/true", wire::kPathSize - 1);
    REQUIRE(probe.size() < wire::kPathSize);
  }

  FakeBroker broker;
  Server server;
};

// LD_PRELOAD, LATCHKEY_SOCKET and LATCHKEY_TOKEN are all that is in it.
constexpr char kKept[] = "shim 1\nentries 3\n";
constexpr char kBare[] = "shim 0\nentries 0\n";

TEST_CASE("a program that is given an empty environment belongs to the session") {
  World world;
  const std::string name = GENERATE(as<std::string>(), "execve", "null", "execv", "execl", "execle",
                                    "execvpe", "fexecve", "execveat", "syscall", "syscall-at");
  INFO(name);
  CHECK(world.Run("exec-" + name) == kKept);
  CHECK(world.broker.Count(Type::kAttach) == 2);
}

TEST_CASE("so does one that is searched for") {
  World world;
  const std::string name = GENERATE(as<std::string>(), "execvp", "execlp");
  INFO(name);
  CHECK(world.Run("exec-" + name) == "shim 1\nentries 4\n");
  CHECK(world.broker.Count(Type::kAttach) == 2);
}

TEST_CASE("so does one that env -i starts") {
  World world;
  CHECK(world.Run("exec-env") == kKept);
  CHECK(world.broker.Count(Type::kAttach) == 3);
}

TEST_CASE("so does one that is spawned") {
  World world;
  const std::string name = GENERATE(as<std::string>(), "spawn", "spawnp", "spawn-elsewhere");
  INFO(name);
  const std::string output = world.Run("exec-" + name);
  CHECK(output == std::string(kKept) + "spawn 0\nstatus 0\n");
  CHECK(world.broker.Count(Type::kAttach) == 2);
}

TEST_CASE("so does one that is spawned by a call that not every libc has") {
  World world;
  const std::string name = GENERATE(as<std::string>(), "pidfd-spawn", "pidfd-spawnp");
  INFO(name);
  auto environment = In(world.broker);
  environment["LD_PRELOAD"] = std::filesystem::absolute(std::getenv("LATER_LIBC"));
  CHECK(Probe("exec-" + name, world.server.port(), environment).Finish() ==
        std::string(kKept) + "spawn 0\nwait 0\nstatus 0\n");
  CHECK(world.broker.Count(Type::kAttach) == 2);
  // Without it: as that which the test itself has.
  if (dlsym(RTLD_DEFAULT, "pidfd_spawn") == nullptr) {
    CHECK(world.Run("exec-" + name) == "spawn " + std::to_string(ENOSYS) + "\n");
  }
}

TEST_CASE("so does one that a vfork child becomes, whose parent goes on as before") {
  World world;
  CHECK(world.Run("exec-vfork") == std::string(kKept) + "status 0\nsame 1\nconnect 0\n");
  CHECK(world.broker.Count(Type::kAttach) == 2);
}

TEST_CASE("a program that the policy lets go starts as the other wants it") {
  World world;
  world.Exempt();
  const std::string name =
      GENERATE(as<std::string>(), "execve", "null", "execv", "execl", "execle", "execvpe",
               "fexecve", "execveat", "syscall", "syscall-at", "spawn", "spawnp", "vfork", "env");
  INFO(name);
  CHECK(world.Run("exec-" + name).find(kBare) != std::string::npos);
  // env itself is not let go.
  CHECK(world.broker.Count(Type::kAttach) == (name == "env" ? 2 : 1));
}

TEST_CASE("where a file action may change what a path means, nothing is let go") {
  World world;
  world.Exempt();
  CHECK(world.Run("exec-spawn-elsewhere").find(kKept) != std::string::npos);
}

TEST_CASE("an exec that fails has its errno and changes nothing") {
  World world;
  const bool exempt = GENERATE(false, true);
  if (exempt) world.Exempt();
  const auto line = [](const char* what, int value) {
    return std::string(what) + " " + std::to_string(value) + "\n";
  };
  CHECK(world.Run("exec-fails") == line("missing", ENOENT) + line("folder", EACCES) +
                                       line("search", ENOENT) + line("descriptor", EINVAL) +
                                       line("bad-environment", EFAULT) + line("bad-path", EFAULT) +
                                       line("bad-entry", EFAULT) + line("spawn", ENOENT) +
                                       line("same", 1));
  CHECK(world.broker.Count(Type::kAttach) == 1);
}

TEST_CASE("an environment that has no room for the session is too large") {
  World world;
  const std::string too_large = std::to_string(E2BIG) + "\n";
  CHECK(world.Run("exec-large") == "exec " + too_large + "spawn " + too_large);
}

TEST_CASE("to look through 100 variables takes an exec less than 20 us") {
  World world;
  CHECK(world.Run("exec-time") == "slow 0\n");
}

}  // namespace
}  // namespace latchkey::testing
