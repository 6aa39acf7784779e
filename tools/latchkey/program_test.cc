#include "tools/latchkey/program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace latchkey::tool {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    const char* base = getenv("TEST_TMPDIR");
    std::string path = std::string(base != nullptr ? base : "/tmp") + "/programXXXXXX";
    REQUIRE(mkdtemp(path.data()) != nullptr);
    path_ = fs::canonical(path).string();
  }
  ~Folder() { fs::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0755) {
    const std::string path = path_ + "/" + name;
    std::ofstream(path) << text;
    REQUIRE(chmod(path.c_str(), mode) == 0);
    return path;
  }
  std::string Copy(const std::string& name, mode_t mode) {
    const std::string path = path_ + "/" + name;
    fs::copy_file("/bin/true", path);
    REQUIRE(chmod(path.c_str(), mode) == 0);
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string Text(const Outcome<std::string>& outcome) {
  if (!outcome) return outcome.error().text;
  return outcome->empty() ? "fine" : *outcome;
}

TEST_CASE("Searches PATH as execvp does") {
  Folder first, second;
  first.Write("tool", "x", 0644);
  const std::string tool = second.Write("tool", "x");
  const std::string path = "/nowhere:" + first.path() + ":" + second.path();

  const auto found = FindProgram("tool", path.c_str());
  REQUIRE(found);
  CHECK(found->path == tool);
  CHECK(found->absolute == tool);

  const auto denied = FindProgram("tool", first.path().c_str());
  REQUIRE_FALSE(denied);
  CHECK(denied.error().exit == 126);
  CHECK(denied.error().text == first.path() + "/tool: Permission denied");

  const auto missing = FindProgram("no-such-tool", path.c_str());
  REQUIRE_FALSE(missing);
  CHECK(missing.error().exit == 127);
  CHECK(missing.error().text == "no-such-tool: no such program in PATH");
  CHECK(FindProgram("", path.c_str()).error().exit == 127);
  CHECK(FindProgram("true", nullptr).has_value());
}

TEST_CASE("A name with a slash is not searched") {
  Folder folder;
  const std::string tool = folder.Write("tool", "x");
  CHECK(FindProgram(folder.path() + "/nothing", "/bin").error().exit == 127);
  CHECK(FindProgram(tool + "/under", "/bin").error().exit == 127);
  CHECK(FindProgram(folder.path() + "/", "/bin").error().exit == 126);
  REQUIRE(symlink(folder.path().c_str(), (folder.path() + "/link").c_str()) == 0);
  const auto found = FindProgram(folder.path() + "/link/tool", "/bin");
  REQUIRE(found);
  CHECK(found->path == folder.path() + "/link/tool");
  CHECK(found->absolute == tool);
}

TEST_CASE("An ordinary program and a script of one pass") {
  Folder folder;
  CHECK(Text(CheckLoadable("/bin/true", "/bin")) == "fine");
  CHECK(Text(CheckLoadable(folder.Write("s", "#!/bin/sh\n"), "/bin")) == "fine");
  CHECK(Text(CheckLoadable(folder.Write("e", "#!/usr/bin/env sh\n"), "/bin")) == "fine");
  CHECK(Text(CheckLoadable(folder.Write("f", "#!/usr/bin/env -S A=1 sh -e\n"), "/bin")) == "fine");
}

TEST_CASE("Set-id bits are refused, on what is run and not on a script") {
  Folder folder;
  const std::string user = folder.Copy("user", 04755);
  const std::string group = folder.Copy("group", 02755);
  CHECK(CheckLoadable(user, "/bin").error().exit == 126);
  CHECK(Text(CheckLoadable(user, "/bin")) == user + ": set-user-ID: the loader ignores the shim");
  CHECK(Text(CheckLoadable(group, "/bin")) ==
        group + ": set-group-ID: the loader ignores the shim");
  const std::string script = folder.Write("script", "#!" + user + "\n");
  CHECK(Text(CheckLoadable(script, "/bin")) ==
        script + ": its interpreter " + user + ": set-user-ID: the loader ignores the shim");
  CHECK(Text(CheckLoadable(folder.Write("s", "#!/bin/sh\n", 04755), "/bin")) == "fine");
}

TEST_CASE("Scripts are followed to their end") {
  Folder folder;
  CHECK(CheckLoadable(folder.Write("gone", "#!/no/such/sh\n"), "/bin").error().exit == 127);
  CHECK(CheckLoadable(folder.Write("none", "#!\n"), "/bin").error().exit == 126);
  CHECK(CheckLoadable(folder.Write("text", "echo\n"), "/bin").error().exit == 126);
  CHECK(CheckLoadable(folder.Write("empty", ""), "/bin").error().exit == 126);
  std::string last = "/bin/sh";
  for (int i = 1; i <= 5; ++i) {
    last = folder.Write("level" + std::to_string(i), "#!" + last + "\n");
    CAPTURE(i);
    CHECK(CheckLoadable(last, "/bin").has_value() == (i <= 4));
  }
  const std::string self = folder.path() + "/self";
  CHECK(CheckLoadable(folder.Write("self", "#!" + self + "\n"), "/bin").error().exit == 126);
}

TEST_CASE("What env would start is checked too") {
  Folder folder;
  const std::string path = folder.path() + ":/bin";
  folder.Copy("setid", 04755);
  const auto check = [&](const std::string& argument) {
    return CheckLoadable(folder.Write("s", "#!/usr/bin/env " + argument + "\n"), path.c_str());
  };
  CHECK(check("true").has_value());
  CHECK(check("setid").error().exit == 126);
  CHECK(check("no-such-thing").error().exit == 127);
  CHECK(check("-S setid -x").error().exit == 126);
  CHECK(check("-i sh").error().exit == 126);
  CHECK(check("-S -i sh").error().exit == 126);
  CHECK(check("-S LD_PRELOAD= sh").error().exit == 126);
  CHECK(check("LD_PRELOAD= sh").error().exit == 126);
  CHECK(check("").error().exit == 126);
}

}  // namespace
}  // namespace latchkey::tool
