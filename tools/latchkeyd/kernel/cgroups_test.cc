#include "tools/latchkeyd/kernel/cgroups.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

namespace latchkey::broker {
namespace {

std::string PathOf(int32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cgroup");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return ReadCgroupPath(text).value();
}

// A process that does nothing until it is ended.
class Sleeper {
 public:
  Sleeper() : pid_(fork()) {
    if (pid_ == 0) {
      for (;;) pause();
    }
  }
  ~Sleeper() { End(); }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  pid_t pid() const { return pid_; }
  void End() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_;
};

TEST_CASE("the path is version 2's, and one that we can reach") {
  CHECK(ReadCgroupPath("0::/\n") == "");
  CHECK(ReadCgroupPath("9:cpu:/a\n0::/user.slice/user-1000.slice\n") ==
        "user.slice/user-1000.slice");
  CHECK_FALSE(ReadCgroupPath("9:cpu:/a\n"));
  CHECK_FALSE(ReadCgroupPath(""));
  CHECK_FALSE(ReadCgroupPath("0::/../b\n"));
  CHECK_FALSE(ReadCgroupPath("0::/..\n"));
  CHECK_FALSE(ReadCgroupPath("0::/a (deleted)\n"));
}

TEST_CASE("a process is moved beneath where it is, unless that is a user's") {
  const Result<Cgroups> cgroups = Cgroups::Open();
  REQUIRE(cgroups);
  Sleeper sleeper;
  const pid_t child = sleeper.pid();
  const std::string before = PathOf(child);
  const std::string first = cgroups->MakeFor(child).value();
  CHECK(first.starts_with(before.empty() ? "latchkey-" : before + "/latchkey-"));
  REQUIRE(cgroups->Move(first, child));
  CHECK(PathOf(child) == first);
  CHECK_FALSE(cgroups->Remove(first));

  const std::string second = cgroups->MakeFor(child).value();
  CHECK(second.starts_with(first + "/latchkey-"));
  // Who may write to the one could leave what is beneath it.
  const UniqueFd folder = cgroups->OpenFolder(first).value();
  REQUIRE(fchown(folder.get(), 1000, 1000) == 0);
  const std::string third = cgroups->MakeFor(child).value();
  CHECK(third.starts_with(before.empty() ? "latchkey-" : before + "/latchkey-"));
  REQUIRE(cgroups->Move(third, child));
  CHECK(PathOf(child) == third);

  sleeper.End();
  CHECK(cgroups->Remove(second));
  CHECK(cgroups->Remove(first));
  CHECK(cgroups->Remove(third));
  CHECK(cgroups->Remove(third));  // gone already
  CHECK_FALSE(cgroups->OpenFolder(third));
  CHECK_FALSE(cgroups->Move(third, getpid()));
}

TEST_CASE("what a broker that was killed left goes, once it is old and empty") {
  const Result<Cgroups> cgroups = Cgroups::Open();
  REQUIRE(cgroups);
  Sleeper sleeper;
  const pid_t child = sleeper.pid();
  const std::string parent = cgroups->MakeFor(child).value();
  REQUIRE(cgroups->Move(parent, child));
  const std::string left = cgroups->MakeFor(child).value();
  REQUIRE(left.starts_with(parent + "/"));
  const std::string full = cgroups->MakeFor(child).value();
  REQUIRE(cgroups->Move(full, child));
  cgroups->RemoveForsaken(parent, 3600);  // too young
  CHECK(cgroups->OpenFolder(left));
  cgroups->RemoveForsaken(parent, 0);
  CHECK_FALSE(cgroups->OpenFolder(left));
  CHECK(cgroups->OpenFolder(full));
  sleeper.End();
  CHECK(cgroups->Remove(full));
  CHECK(cgroups->Remove(parent));
}

// The broker's capabilities once it serves: the root of the hierarchy has mode 0555.
int MakeWithFewCapabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  data[0].effective = data[0].permitted = 1u << CAP_NET_ADMIN;
  if (syscall(SYS_capset, &header, data) != 0) return 2;
  const Result<Cgroups> cgroups = Cgroups::Open();
  if (!cgroups) return 3;
  const Result<std::string> path = cgroups->MakeFor(getpid());
  if (!path) return 4;
  return cgroups->Remove(*path) ? 0 : 5;
}

TEST_CASE("no capability is needed, for a process at the root either") {
  const auto mode = [] {
    struct stat status {};
    REQUIRE(fstat(Cgroups::Open()->OpenFolder("")->get(), &status) == 0);
    return status.st_mode;
  };
  const mode_t before = mode();
  const pid_t child = fork();
  if (child == 0) _exit(MakeWithFewCapabilities());
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(mode() == before);
}

}  // namespace
}  // namespace latchkey::broker
