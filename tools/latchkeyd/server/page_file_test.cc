#include "tools/latchkeyd/server/page_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace latchkey::broker {
namespace {

using wire::Trouble;

struct Directory {
  Directory() {
    char name[] = "/tmp/page_file_test.XXXXXX";
    path = mkdtemp(name);
  }
  ~Directory() {
    unlink(File().c_str());
    rmdir(path.c_str());
  }
  std::string File() const { return path + "/1"; }
  std::string path;
};

std::unique_ptr<wire::Page> EmptyPage() { return std::make_unique<wire::Page>(); }

// What a program sees of a socket: the shim's own way of looking (shim/page_view.cc).
Trouble Seen(const wire::Page& page, uint64_t cookie) {
  uint32_t at = wire::SlotOf(cookie);
  for (uint32_t i = 0; i < wire::kPageSlots; ++i, at = (at + 1) & (wire::kPageSlots - 1)) {
    const uint64_t there = page.slots[at].cookie.load();
    if (there == cookie) return page.slots[at].trouble.load();
    if (there == 0) break;
  }
  return Trouble::kFree;
}

// Cookies that all want the same slot.
std::vector<uint64_t> Colliding(size_t count, uint32_t slot) {
  std::vector<uint64_t> found;
  for (uint64_t cookie = 1; found.size() < count; ++cookie) {
    if (wire::SlotOf(cookie) == slot) found.push_back(cookie);
  }
  return found;
}

TEST_CASE("Trouble is put in, changed and taken out") {
  auto page = EmptyPage();
  SetTrouble(*page, 77, Trouble::kNoSa, Reason::kNoSa);
  CHECK(Seen(*page, 77) == Trouble::kNoSa);
  CHECK(page->troubled == 1);
  SetTrouble(*page, 77, Trouble::kBroken, Reason::kConflictSa);
  CHECK(Seen(*page, 77) == Trouble::kBroken);
  CHECK(page->slots[wire::SlotOf(77)].reason == static_cast<uint32_t>(Reason::kConflictSa));
  CHECK(page->troubled == 1);
  ClearTrouble(*page, 77);
  CHECK(Seen(*page, 77) == Trouble::kFree);
  CHECK(page->troubled == 0);
  ClearTrouble(*page, 77);
  CHECK(page->troubled == 0);
}

TEST_CASE("A chain that runs past the end of the table and has holes still leads to all") {
  auto page = EmptyPage();
  const std::vector<uint64_t> cookies = Colliding(4, wire::kPageSlots - 2);
  for (const uint64_t cookie : cookies) SetTrouble(*page, cookie, Trouble::kBroken, Reason::kAdmin);
  ClearTrouble(*page, cookies[1]);
  CHECK(Seen(*page, cookies[3]) == Trouble::kBroken);
  CHECK(page->slots[wire::kPageSlots - 1].cookie == wire::kTombstone);
  // The hole is used again, and not twice.
  SetTrouble(*page, cookies[3], Trouble::kNoSa, Reason::kNoSa);
  CHECK(page->troubled == 3);
  SetTrouble(*page, cookies[1], Trouble::kBroken, Reason::kAdmin);
  CHECK(page->slots[wire::kPageSlots - 1].cookie == cookies[1]);
  for (const uint64_t cookie : cookies) ClearTrouble(*page, cookie);
  for (const wire::PageSlot& slot : page->slots) CHECK(slot.cookie == 0);
}

TEST_CASE("A full table says so, and what is in it stays true") {
  auto page = EmptyPage();
  for (uint64_t cookie = 1; cookie <= wire::kPageSlots; ++cookie) {
    SetTrouble(*page, cookie, Trouble::kBroken, Reason::kAdmin);
  }
  CHECK((page->flags & wire::kPageOverflow) == 0);
  SetTrouble(*page, wire::kPageSlots + 1, Trouble::kBroken, Reason::kAdmin);
  CHECK((page->flags & wire::kPageOverflow) != 0);
  CHECK(page->troubled != 0);
  for (uint64_t cookie = 1; cookie <= wire::kPageSlots; ++cookie) {
    ClearTrouble(*page, cookie);
  }
  // The one without a slot is still in trouble: a shim must not return at once.
  CHECK(page->troubled == 1);
  CHECK((page->flags & wire::kPageOverflow) != 0);
}

TEST_CASE("Random troubles agree with a map of them") {
  auto page = EmptyPage();
  std::map<uint64_t, Trouble> model;
  std::mt19937_64 random(5660);
  // Few homes, so that chains grow long and cross one another.
  std::vector<uint64_t> cookies = Colliding(12, wire::kPageSlots - 3);
  for (const uint64_t more : Colliding(12, 0)) cookies.push_back(more);
  for (const uint64_t more : Colliding(12, 2)) cookies.push_back(more);
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t cookie = cookies[random() % cookies.size()];
    switch (random() % 3) {
      case 0:
        SetTrouble(*page, cookie, Trouble::kBroken, Reason::kAdmin);
        model[cookie] = Trouble::kBroken;
        break;
      case 1:
        SetTrouble(*page, cookie, Trouble::kNoSa, Reason::kNoSa);
        model[cookie] = Trouble::kNoSa;
        break;
      default:
        ClearTrouble(*page, cookie);
        model.erase(cookie);
    }
    REQUIRE(page->troubled == model.size());
    for (const uint64_t each : cookies) {
      const auto it = model.find(each);
      REQUIRE(Seen(*page, each) == (it == model.end() ? Trouble::kFree : it->second));
    }
  }
  for (const uint64_t cookie : cookies) ClearTrouble(*page, cookie);
  for (const wire::PageSlot& slot : page->slots) REQUIRE(slot.cookie == 0);
}

TEST_CASE("The file is private, read-only for programs, and outlives the broker") {
  const Directory directory;
  policy::Policy policy;
  policy.otherwise = policy::Action::kDiscard;
  {
    Result<PageFile> file = PageFile::Make(directory.File(), policy, nullptr);
    REQUIRE(file);
    CHECK(file->page().magic == wire::kPageMagic);
    CHECK((file->page().flags & wire::kPageDenyDatagrams) != 0);
    CHECK(file->page().generation % 2 == 0);
    struct stat status {};
    REQUIRE(stat(directory.File().c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    CHECK(status.st_size == static_cast<off_t>(sizeof(wire::Page)));
    SetTrouble(file->page(), 5, Trouble::kBroken, Reason::kConflictSa);

    const int client = file->OpenForClient();
    REQUIRE(client >= 0);
    CHECK(mmap(nullptr, sizeof(wire::Page), PROT_READ | PROT_WRITE, MAP_SHARED, client, 0) ==
          MAP_FAILED);
    void* mapped = mmap(nullptr, sizeof(wire::Page), PROT_READ, MAP_SHARED, client, 0);
    REQUIRE(mapped != MAP_FAILED);
    CHECK(Seen(*static_cast<const wire::Page*>(mapped), 5) == Trouble::kBroken);
    munmap(mapped, sizeof(wire::Page));
    close(client);
  }
  Result<PageFile> again = PageFile::Reopen(directory.File(), policy, nullptr);
  REQUIRE(again);
  CHECK(Seen(again->page(), 5) == Trouble::kBroken);
  CHECK(again->page().troubled == 1);
}

TEST_CASE("The page lists what may be started without the shim") {
  const Directory directory;
  policy::Policy policy;
  CHECK(PageFile::Make(directory.File(), policy, nullptr)->page().drop_preload[0][0] == '\0');
  for (char i = 'a'; i < 'q'; ++i) policy.drop_preload.push_back("/" + std::string(254, i));
  policy.drop_preload[1] = "/usr/bin/sudo";
  for (const bool fresh : {true, false}) {
    Result<PageFile> file = fresh ? PageFile::Make(directory.File(), policy, nullptr)
                                  : PageFile::Reopen(directory.File(), policy, nullptr);
    REQUIRE(file);
    REQUIRE(policy.drop_preload.size() == wire::kPageExempt);
    for (size_t i = 0; i < wire::kPageExempt; ++i) {
      CHECK(policy.drop_preload[i] == file->page().drop_preload[i]);
    }
  }
}

TEST_CASE("A new session never takes over an old one's page") {
  const Directory directory;
  Result<PageFile> old = PageFile::Make(directory.File(), policy::Policy{}, nullptr);
  REQUIRE(old);
  SetTrouble(old->page(), 5, Trouble::kBroken, Reason::kConflictSa);
  Result<PageFile> fresh = PageFile::Make(directory.File(), policy::Policy{}, nullptr);
  REQUIRE(fresh);
  CHECK(Seen(fresh->page(), 5) == Trouble::kFree);
  // Programs that mapped the old one keep what it said.
  CHECK(Seen(old->page(), 5) == Trouble::kBroken);
}

TEST_CASE("What is no page is not taken over") {
  const Directory directory;
  const int fd = open(directory.File().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  SECTION("another content") {
    REQUIRE(write(fd, "not a page", 10) == 10);
    CHECK_FALSE(PageFile::Reopen(directory.File(), policy::Policy{}, nullptr));
  }
  SECTION("another version") {
    const uint32_t magic = wire::kPageMagic;
    const uint16_t version = wire::kVersion + 1;
    REQUIRE(pwrite(fd, &magic, sizeof(magic), 0) == sizeof(magic));
    REQUIRE(pwrite(fd, &version, sizeof(version), 4) == sizeof(version));
    CHECK_FALSE(PageFile::Reopen(directory.File(), policy::Policy{}, nullptr));
  }
  SECTION("another layout, which goes on being as long as it is to those who have it mapped") {
    const uint32_t magic = wire::kPageMagic + 1;
    constexpr off_t kLonger = sizeof(wire::Page) + 65'536;
    REQUIRE(ftruncate(fd, kLonger) == 0);
    REQUIRE(pwrite(fd, &magic, sizeof(magic), 0) == sizeof(magic));
    CHECK_FALSE(PageFile::Reopen(directory.File(), policy::Policy{}, nullptr));
    CHECK(lseek(fd, 0, SEEK_END) == kLonger);
  }
  SECTION("a symbolic link") {
    unlink(directory.File().c_str());
    REQUIRE(symlink("/etc/passwd", directory.File().c_str()) == 0);
    CHECK_FALSE(PageFile::Reopen(directory.File(), policy::Policy{}, nullptr));
  }
  SECTION("an empty file becomes one") {
    CHECK(PageFile::Reopen(directory.File(), policy::Policy{}, nullptr));
  }
  close(fd);
}

}  // namespace
}  // namespace latchkey::broker
