#include "tools/latchkey/policy_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace latchkey::tool {
namespace {

namespace fs = std::filesystem;

constexpr char kRule[] = "[[rule]]\ndirection = \"out\"\nprotocol = \"tcp\"\naction = \"bypass\"\n";

class Folder {
 public:
  Folder() {
    const char* base = getenv("TEST_TMPDIR");
    std::string path = std::string(base != nullptr ? base : "/tmp") + "/policyXXXXXX";
    REQUIRE(mkdtemp(path.data()) != nullptr);
    path_ = fs::canonical(path).string();
  }
  ~Folder() { fs::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = path_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }
  // Without `programs` the policy is for any.
  std::string Policy(const std::string& name, const std::string& programs) {
    const std::string list = programs.empty() ? "" : "program = [" + programs + "]\n";
    return Write(name, "latchkey = 1\napplication = \"test\"\n" + list + kRule);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Program Named(const std::string& path) { return Program{path, path}; }

TEST_CASE("Loads a policy and leaves its descriptor at the beginning") {
  Folder folder;
  const std::string name = folder.Policy("a.toml", "\"/usr/bin/curl\"");
  const auto file = LoadPolicy(name);
  REQUIRE(file);
  CHECK(file->name == name);
  CHECK(file->policy.program == std::vector<std::string>{"/usr/bin/curl"});
  CHECK(lseek(file->fd.get(), 0, SEEK_CUR) == 0);
}

TEST_CASE("Errors are one line each with their place") {
  Folder folder;
  const std::string name =
      folder.Write("bad.toml", "latchkey = 1\napplication = \"x\"\nnonsense = 1\nrubbish = 2\n");
  const auto file = LoadPolicy(name);
  REQUIRE_FALSE(file);
  CHECK(file.error().exit == 125);
  CHECK(file.error().text.starts_with(name + ":3:"));
  CHECK(file.error().text.find("\n" + name + ":4:") != std::string::npos);
}

TEST_CASE("What is no readable file is refused with one line") {
  Folder folder;
  CHECK(LoadPolicy(folder.path() + "/none.toml").error().text ==
        folder.path() + "/none.toml: No such file or directory");
  CHECK(LoadPolicy(folder.path()).error().text == folder.path() + ": not a regular file");
  const std::string fifo = folder.path() + "/fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(LoadPolicy(fifo).error().text == fifo + ": not a regular file");
  const std::string large = folder.Write("large.toml", std::string((1 << 20) + 1, '#'));
  CHECK(LoadPolicy(large).error().text ==
        large + ":1:1: larger than 1 MiB: expected at most 1048576 octets");
}

TEST_CASE("Finds the one policy that names the program") {
  Folder folder;
  folder.Policy("a.toml", "\"/usr/bin/wget\"");
  const std::string curl = folder.Policy("b.toml", "\"/usr/bin/curl\", \"/opt/tool\"");
  folder.Policy("c.toml", "");                         // for any program: only by -p
  folder.Write("d.txt", "not a policy");               // not *.toml
  folder.Policy(".hidden.toml", "\"/usr/bin/curl\"");  // an editor's
  auto found = FindPolicy(folder.path(), Named("/usr/bin/curl"));
  REQUIRE(found);
  REQUIRE(*found);
  CHECK((*found)->name == curl);
  found = FindPolicy(folder.path(), Named("/usr/bin/nothing"));
  REQUIRE(found);
  CHECK_FALSE(*found);
  found = FindPolicy(folder.path() + "/none", Named("/usr/bin/curl"));
  REQUIRE(found);
  CHECK_FALSE(*found);
}

TEST_CASE("Two policies for a program are an error") {
  Folder folder;
  folder.Policy("a.toml", "\"/usr/bin/curl\"");
  folder.Policy("b.toml", "\"/usr/bin/curl\"");
  const auto found = FindPolicy(folder.path(), Named("/usr/bin/curl"));
  REQUIRE_FALSE(found);
  CHECK(found.error().exit == 125);
  CHECK(found.error().text.find("two policies") != std::string::npos);
  CHECK(FindPolicy(folder.path(), Named("/usr/bin/wget")).has_value());
}

TEST_CASE("A policy that cannot be read refuses: it might be the one meant") {
  Folder folder;
  folder.Policy("a.toml", "\"/usr/bin/wget\"");
  const std::string bad = folder.Write("b.toml", "latchkey = \n");
  const auto found = FindPolicy(folder.path(), Named("/usr/bin/curl"));
  REQUIRE_FALSE(found);
  CHECK(found.error().exit == 125);
  CHECK(found.error().text.starts_with(bad + ":1:"));
}

TEST_CASE("A program is listed under its path or its folder's other name") {
  Folder folder;
  fs::create_directory(folder.path() + "/usr");
  fs::create_directory_symlink("usr", folder.path() + "/bin");
  const std::string real = folder.path() + "/usr/tool";
  const std::string linked = folder.path() + "/bin/tool";
  policy::Policy policy;
  policy.program = {"/other", linked};
  CHECK(ListedAs(policy, Program{linked, real}) == linked);
  CHECK(ListedAs(policy, Program{real, real}) == linked);
  policy.program = {real};
  CHECK(ListedAs(policy, Program{linked, real}) == real);
  CHECK_FALSE(
      ListedAs(policy, Program{folder.path() + "/usr/tool2", folder.path() + "/usr/tool2"}));
  policy.program = {"tool"};
  CHECK_FALSE(ListedAs(policy, Program{real, real}));
  policy.program.clear();
  CHECK(ListedAs(policy, Program{linked, real}) == real);
}

}  // namespace
}  // namespace latchkey::tool
