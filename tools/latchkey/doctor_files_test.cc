#include "tools/latchkey/doctor_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace latchkey::tool {
namespace {

constexpr char kPolicy[] = "latchkey = 1\napplication = \"app\"\n";

struct Folder {
  FilePlaces places;
  std::string top;

  Folder() {
    const char* base = std::getenv("TEST_TMPDIR");
    top = std::string(base != nullptr ? base : "/tmp") + "/doctorXXXXXX";
    REQUIRE(mkdtemp(top.data()) != nullptr);
    places.folder = top + "/latchkey";
    places.owner = geteuid();
  }
  ~Folder() { std::filesystem::remove_all(top); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0644) const {
    const std::string path = places.folder + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
    REQUIRE(chmod(path.c_str(), mode) == 0);
    return path;
  }
  std::string Text(uint32_t* mark_mask = nullptr) const {
    uint32_t mask = 0xffff0000;
    const std::string text = FindingsText(FileFindings(places, mask));
    if (mark_mask != nullptr) *mark_mask = mask;
    return text;
  }
};

TEST_CASE("No folder at all is worth a note") {
  const Folder folder;
  CHECK(folder.Text() == "note  no " + folder.places.folder +
                             ": the kernel's SPD is all the policy there is: make it, with a "
                             "system.toml, where a floor is wanted for all programs\n");
}

TEST_CASE("Files in good order are ok, and bring the marks") {
  const Folder folder;
  const std::string system = folder.Write("system.toml", "latchkey = 1\nmark_mask = 0xff\n");
  const std::string pad = folder.Write("pad.toml",
                                       "[[sa]]\nreqid = 7\nid = \"alice\"\n"
                                       "local_id = \"bob\"\nauth = \"manual\"\n");
  const std::string policy = folder.Write("policy.d/app.toml", kPolicy);
  folder.Write("policy.d/notes.txt", "nobody's");
  uint32_t mask = 0;
  CHECK(folder.Text(&mask) == "ok    " + system + "\nok    " + pad + "\nok    " + policy + "\n");
  CHECK(mask == 0xff);
}

TEST_CASE("Errors are told with file, line and column") {
  const Folder folder;
  const std::string system = folder.Write("system.toml", "latchkey = 2\nnonsense = 1\n");
  const std::string pad = folder.Write("pad.toml", "[[sa]]\nreqid = 0\n");
  const std::string policy = folder.Write("policy.d/app.toml", "nonsense = 1\n");
  uint32_t mask = 0;
  const std::string text = "\n" + folder.Text(&mask);
  CAPTURE(text);
  CHECK(text.find("\nBAD   " + system + ":1:12: ") != std::string::npos);
  CHECK(text.find("\nBAD   " + system + ":2:1: ") != std::string::npos);
  CHECK(text.find("\nBAD   " + pad + ":") != std::string::npos);
  CHECK(text.find("\nBAD   " + policy + ":1:1: ") != std::string::npos);
  CHECK(mask == 0xffff0000);
}

TEST_CASE("What others may write is not safe, file or folder") {
  const Folder folder;
  const std::string system = folder.Write("system.toml", "latchkey = 1\n", 0664);
  const std::string policy = folder.Write("policy.d/app.toml", kPolicy, 0646);
  std::string text = folder.Text();
  CHECK(text.find("BAD   " + system + ": others may write it: chown ") == 0);
  CHECK(text.find("BAD   " + policy + ": others may write it: ") != std::string::npos);
  REQUIRE(chmod((folder.places.folder + "/policy.d").c_str(), 0777) == 0);
  CHECK(folder.Text().find("policy.d: others may write it: ") != std::string::npos);
  REQUIRE(chmod(folder.places.folder.c_str(), 0775) == 0);
  text = folder.Text();
  CHECK(text.starts_with("BAD   " + folder.places.folder + ": others may write it: "));
}

TEST_CASE("Another's file decides nothing") {
  Folder folder;
  const std::string system = folder.Write("system.toml", "latchkey = 1\n");
  folder.places.owner = geteuid() + 1;
  CHECK(folder.Text().starts_with("BAD   " + folder.places.folder + ": it belongs to uid " +
                                  std::to_string(geteuid()) + ": chown "));
}

TEST_CASE("What is no file is not read") {
  const Folder folder;
  std::filesystem::create_directories(folder.places.folder + "/system.toml");
  folder.Write("policy.d", "x");
  const std::string text = folder.Text();
  CHECK(text.find("system.toml: not a regular file: ") != std::string::npos);
  CHECK(text.find("policy.d: not a folder: ") != std::string::npos);
}

TEST_CASE("A program that two policies name is started under neither") {
  const Folder folder;
  const std::string named = std::string(kPolicy) + "program = [\"/usr/bin/curl\"]\n";
  const std::string a = folder.Write("policy.d/a.toml", named);
  const std::string b = folder.Write("policy.d/b.toml", named);
  CHECK(folder.Text() == "ok    " + a + "\nok    " + b + "\nBAD   /usr/bin/curl is named by " + a +
                             " and " + b + ": take it out of one of them\n");
}

}  // namespace
}  // namespace latchkey::tool
