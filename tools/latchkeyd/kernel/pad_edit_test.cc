#include "tools/latchkeyd/kernel/pad_edit.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace latchkey::broker {
namespace {

using policy::PadEntry;

PadEntry Entry(uint32_t reqid, const char* remote, const std::string& peer) {
  PadEntry entry;
  entry.reqid = reqid;
  entry.remote = {*Address::Parse(remote)};
  entry.identity = Identity{peer, "bob", "manual"};
  return entry;
}

constexpr char kText[] =
    "# who is who\n"
    "latchkey = 1\n"
    "\n"
    "[[sa]]  # the lab\n"
    "reqid = 3\n"
    "id = \"carol\"\n"
    "# about dave\n"
    "[[sa]]\n"
    "spi = \"0x101\"\n"
    "dst = \"10.9.0.2\"\n"
    "id = \"dave\"\n";

TEST_CASE("An entry added reads back and is taken out without a trace") {
  const PadEntry entry = Entry(7, "10.9.0.1", "alice");
  const Result<std::string> with = WithPadEntry(kText, "pad.toml", entry);
  REQUIRE(with);
  CHECK(with->starts_with(kText));
  const auto pad = policy::ParsePad(*with, "pad.toml");
  REQUIRE(pad);
  REQUIRE(pad->entries.size() == 3);
  CHECK(pad->entries.back().identity == entry.identity);
  CHECK(pad->entries.back().remote == entry.remote);
  CHECK(WithPadEntry(*with, "pad.toml", entry) == *with);  // twice is once
  CHECK(WithoutPadEntry(*with, "pad.toml", entry) == std::string(kText));
  CHECK(WithoutPadEntry(kText, "pad.toml", entry).error().reason == Reason::kClosed);
}

TEST_CASE("What surrounds a removed entry stays") {
  PadEntry carol;
  carol.reqid = 3;
  carol.identity = Identity{"carol", "", "manual"};
  const Result<std::string> without = WithoutPadEntry(kText, "pad.toml", carol);
  REQUIRE(without);
  CHECK(without->find("carol") == std::string::npos);
  CHECK(without->find("# about dave\n[[sa]]\n") != std::string::npos);
  CHECK(without->starts_with("# who is who\nlatchkey = 1\n"));
  PadEntry dave;
  dave.spi = 0x101;
  dave.spi_destination = *Address::Parse("10.9.0.2");
  dave.identity = Identity{"dave", "", "manual"};
  const Result<std::string> none = WithoutPadEntry(*without, "pad.toml", dave);
  REQUIRE(none);
  CHECK(policy::ParsePad(*none, "pad.toml")->entries.empty());
  CHECK(WithoutPadEntry(*WithPadEntry(*none, "pad.toml", dave), "pad.toml", dave) == *none);
}

TEST_CASE("Two names for one SA are refused") {
  const Result<std::string> first = WithPadEntry(kText, "p", Entry(7, "10.9.0.1", "alice"));
  REQUIRE(first);
  CHECK(WithPadEntry(*first, "p", Entry(7, "10.9.0.1", "mallory")).error().reason ==
        Reason::kConflictSa);
  CHECK(WithPadEntry(*first, "p", Entry(7, "10.9.0.9", "mallory")));
  CHECK(WithPadEntry(kText, "p", Entry(3, "10.9.0.9", "mallory")).error().reason ==
        Reason::kConflictSa);  // carol's reqid, at any address
}

TEST_CASE("Ids are quoted, bad ones refused") {
  for (const std::string id : {"a\"b\\c", "tab\there", "C=DE, CN=x [[sa]]", "\x7f"}) {
    CAPTURE(id);
    const PadEntry entry = Entry(7, "fd00::1", id);
    const Result<std::string> with = WithPadEntry(kText, "p", entry);
    REQUIRE(with);
    CHECK(policy::ParsePad(*with, "p")->entries.back().identity.peer_id == id);
    CHECK(WithoutPadEntry(*with, "p", entry) == std::string(kText));
  }
  CHECK_FALSE(WithPadEntry(kText, "p", Entry(7, "fd00::1", "")));
  CHECK_FALSE(WithPadEntry(kText, "p", Entry(0, "fd00::1", "x")));
  CHECK_FALSE(WithPadEntry(kText, "p", Entry(7, "fd00::1", "\xff\xfe")));
  CHECK(WithPadEntry("nonsense", "p", Entry(7, "fd00::1", "x")).error().reason ==
        Reason::kBadPolicy);
}

TEST_CASE("Tables written another way are left alone") {
  const std::string text =
      "sa = [{reqid = 7, remote = [\"10.9.0.1\"], id = \"alice\", "
      "local_id = \"bob\"}]\n";
  const Result<std::string> without = WithoutPadEntry(text, "p", Entry(7, "10.9.0.1", "alice"));
  REQUIRE_FALSE(without);
  CHECK(without.error().reason == Reason::kBadPolicy);
}

TEST_CASE("The file is made, changed and never left half written") {
  const char* base = std::getenv("TEST_TMPDIR");
  std::string directory = std::string(base != nullptr ? base : "/tmp") + "/pad_edit.XXXXXX";
  REQUIRE(mkdtemp(directory.data()) != nullptr);
  const std::string path = directory + "/pad.toml";
  const PadEntry entry = Entry(7, "10.9.0.1", "alice");
  CHECK_FALSE(RemovePadEntry(path, entry));
  REQUIRE(AppendPadEntry(path, entry));
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0644);
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  const auto pad = policy::ParsePad(text.str(), path);
  REQUIRE(pad);
  CHECK(pad->entries.size() == 1);
  CHECK_FALSE(AppendPadEntry(path, Entry(7, "10.9.0.1", "mallory")));
  REQUIRE(RemovePadEntry(path, entry));
  CHECK_FALSE(RemovePadEntry(path, entry));
  CHECK_FALSE(AppendPadEntry(directory + "/none/pad.toml", entry));
  REQUIRE(unlink(path.c_str()) == 0);
  CHECK(rmdir(directory.c_str()) == 0);  // nothing else was left there
}

}  // namespace
}  // namespace latchkey::broker
