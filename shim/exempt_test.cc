#include "shim/exempt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace latchkey::shim {
namespace {

// A folder with bin/tool (a program), bin/text (none), link -> bin/tool, and a page.
struct World {
  World() {
    char name[] = "/tmp/latchkey-exempt.XXXXXX";
    if (mkdtemp(name) == nullptr) std::abort();
    folder = std::filesystem::canonical(name);
    std::filesystem::create_directory(folder + "/bin");
    std::filesystem::create_directory(folder + "/tool");
    std::ofstream(folder + "/bin/tool") << "#!/bin/sh\n";
    std::ofstream(folder + "/bin/text") << "x";
    chmod((folder + "/bin/tool").c_str(), 0755);
    std::filesystem::create_symlink("bin/tool", folder + "/link");
  }
  ~World() { std::filesystem::remove_all(folder); }

  void List(size_t place, const std::string& path) const {
    std::strncpy(page->drop_preload[place], path.c_str(), sizeof(page->drop_preload[0]) - 1);
  }

  std::string folder;
  std::unique_ptr<wire::Page> page = std::make_unique<wire::Page>();
};

TEST_CASE("the list is by path as given, or with symbolic links followed") {
  const World world;
  const wire::Page& page = *world.page;
  const auto exempt = [&](const std::string& path) {
    return IsExempt(page, AT_FDCWD, (world.folder + path).c_str());
  };
  CHECK_FALSE(AnyExempt(page));
  CHECK_FALSE(exempt("/bin/tool"));
  world.List(0, "/usr/bin/true");
  world.List(1, world.folder + "/bin/tool");
  CHECK(AnyExempt(page));
  errno = 77;
  CHECK(exempt("/bin/tool"));
  CHECK(exempt("/link"));
  CHECK(exempt("/bin/../bin//tool"));
  CHECK_FALSE(exempt("/bin/text"));
  CHECK_FALSE(exempt("/bin/gone"));
  CHECK_FALSE(exempt("/bin/too"));
  CHECK_FALSE(IsExempt(page, AT_FDCWD, ""));
  CHECK(errno == 77);
}

TEST_CASE("a listed link is what it is a link to, and no other way there") {
  const World world;
  world.List(0, world.folder + "/link");
  CHECK(IsExempt(*world.page, AT_FDCWD, (world.folder + "/link").c_str()));
  CHECK_FALSE(IsExempt(*world.page, AT_FDCWD, (world.folder + "/bin/tool").c_str()));
}

TEST_CASE("files by descriptor and folder") {
  const World world;
  world.List(0, world.folder + "/bin/tool");
  const int folder = open(world.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int file = openat(folder, "link", O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0);
  CHECK(IsExempt(*world.page, folder, "bin/tool"));
  CHECK(IsExempt(*world.page, file, ""));
  CHECK_FALSE(IsExempt(*world.page, folder, ""));
  CHECK_FALSE(IsExempt(*world.page, folder, "bin/text"));
  close(file);
  close(folder);
}

TEST_CASE("a path as long as the list holds, and one longer") {
  const World world;
  const std::string longest = "/" + std::string(wire::kPathSize - 2, 'x');
  world.List(0, longest);
  CHECK_FALSE(IsExempt(*world.page, AT_FDCWD, longest.c_str()));  // it is not there
  std::array<char, 4096> found;
  CHECK_FALSE(FindInPath("tool", longest.c_str(), found.data(), found.size()));
  const std::string path = world.folder + ":" + world.folder + "/bin";
  CHECK_FALSE(FindInPath("tool", path.c_str(), found.data(), world.folder.size() + 4));
}

TEST_CASE("the path is searched as execvp searches it") {
  const World world;
  std::array<char, 4096> found;
  const auto find = [&](const char* name, const std::string& path) {
    const bool there = FindInPath(name, path.c_str(), found.data(), found.size());
    return there ? std::string(found.data()) : std::string();
  };
  const std::string tool = world.folder + "/bin/tool";
  // A folder of that name is no program.
  CHECK(find("tool", "/nowhere:" + world.folder + ":" + world.folder + "/bin") == tool);
  CHECK(find("text", world.folder + "/bin").empty());
  CHECK(find("gone", world.folder + "/bin").empty());
  CHECK(FindInPath("sh", nullptr, found.data(), found.size()));
  CHECK(std::string(found.data()) == "/bin/sh");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(world.folder + "/bin");
  CHECK(find("tool", ":/bin") == "./tool");
  std::filesystem::current_path(before);
}

}  // namespace
}  // namespace latchkey::shim
