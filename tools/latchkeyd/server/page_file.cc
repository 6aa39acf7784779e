#include "tools/latchkeyd/server/page_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "policy/compile.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {
namespace {

// Returns the cookie's slot; else, with `make`, a free one; else null.
wire::PageSlot* FindSlot(wire::Page& page, uint64_t cookie, bool make) {
  wire::PageSlot* reusable = nullptr;
  uint32_t place = wire::SlotOf(cookie);
  for (uint32_t i = 0; i < wire::kPageSlots; ++i, place = (place + 1) & (wire::kPageSlots - 1)) {
    wire::PageSlot& slot = page.slots[place];
    const uint64_t found = slot.cookie.load(std::memory_order_relaxed);
    if (found == cookie) return &slot;
    if (found == wire::kTombstone && reusable == nullptr) reusable = &slot;
    if (found == 0) {
      if (reusable == nullptr) reusable = &slot;
      break;
    }
  }
  return make ? reusable : nullptr;
}

// Puts what may be started without the shim into the page. The policy's parser sees to it that all
// fit; of a session taken over it writes what is there.
void ListExempt(const policy::Policy& policy, wire::Page& page) {
  for (size_t i = 0; i < wire::kPageExempt; ++i) {
    const std::string path = i < policy.drop_preload.size() ? policy.drop_preload[i] : "";
    char* const listed = page.drop_preload[i];
    if (path.size() >= wire::kPathSize || path == listed) continue;
    // With zeros behind it, to the end.
    std::ranges::fill(std::span(listed, wire::kPathSize), '\0');
    std::ranges::copy(path, listed);
  }
}

}  // namespace

void SetTrouble(wire::Page& page, uint64_t cookie, wire::Trouble trouble, Reason reason) {
  wire::PageSlot* slot = FindSlot(page, cookie, /*make=*/true);
  if (slot == nullptr) {
    // No room: from now on every failed call in this session counts as broken.
    page.flags.fetch_or(wire::kPageOverflow);
    page.troubled.fetch_add(1);
    return;
  }
  slot->reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);
  slot->trouble.store(trouble, std::memory_order_release);
  if (slot->cookie.exchange(cookie, std::memory_order_acq_rel) != cookie) {
    page.troubled.fetch_add(1);
  }
}

void ClearTrouble(wire::Page& page, uint64_t cookie) {
  wire::PageSlot* slot = FindSlot(page, cookie, /*make=*/false);
  if (slot == nullptr) return;
  slot->cookie.store(wire::kTombstone, std::memory_order_release);
  slot->trouble.store(wire::Trouble::kFree, std::memory_order_release);
  page.troubled.fetch_sub(1);
  // Tombstones at the end of a chain lead nowhere: without this they would fill the table in time.
  auto place = static_cast<uint32_t>(slot - page.slots);
  constexpr uint32_t kMask = wire::kPageSlots - 1;
  if (page.slots[(place + 1) & kMask].cookie.load(std::memory_order_relaxed) != 0) return;
  while (page.slots[place].cookie.load(std::memory_order_relaxed) == wire::kTombstone) {
    page.slots[place].cookie.store(0, std::memory_order_release);
    place = (place - 1) & kMask;
  }
}

Result<PageFile> PageFile::Make(const std::string& path, const policy::Policy& policy,
                                const policy::System* system) {
  // What an earlier broker left under this name is some other session's.
  unlink(path.c_str());
  return Map(path, policy, system, O_EXCL);
}

Result<PageFile> PageFile::Reopen(const std::string& path, const policy::Policy& policy,
                                  const policy::System* system) {
  return Map(path, policy, system, 0);
}

Result<PageFile> PageFile::Map(const std::string& path, const policy::Policy& policy,
                               const policy::System* system, int flags) {
  const auto failed = [&](const char* step) {
    return Fail(Reason::kKernelRefused, step, path + ": " + std::strerror(errno));
  };
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600));
  if (!file) return failed("open page");
  // Before its size is touched: programs have the pages of another layout mapped.
  struct {
    uint32_t magic;
    uint16_t version;
  } head{};
  if (pread(file.get(), &head, sizeof(head), 0) < 0) return failed("read page");
  if (head.magic != 0 && (head.magic != wire::kPageMagic || head.version != wire::kVersion)) {
    return Fail(Reason::kKernelRefused, "open page", path + ": not a page");
  }
  if (ftruncate(file.get(), sizeof(wire::Page)) != 0) return failed("size page");
  void* mapped =
      mmap(nullptr, sizeof(wire::Page), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (mapped == MAP_FAILED) return failed("map page");
  auto* page = static_cast<wire::Page*>(mapped);
  page->magic = wire::kPageMagic;
  page->version = wire::kVersion;
  policy::CompileInto(policy, system, *page);
  ListExempt(policy, *page);
  return PageFile(path, page);
}

PageFile::~PageFile() {
  if (page_ != nullptr) munmap(page_, sizeof(wire::Page));
}

int PageFile::OpenForClient() const {
  return open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

void PageFile::Unlink() const { unlink(path_.c_str()); }

}  // namespace latchkey::broker
