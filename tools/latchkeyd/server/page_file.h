// A session's shared page, as a file of the run directory: the broker maps it writable, programs
// get a read-only descriptor. It outlives a broker, so that the next one can still tell old
// programs that a latch broke.
#ifndef TOOLS_LATCHKEYD_SERVER_PAGE_FILE_H_
#define TOOLS_LATCHKEYD_SERVER_PAGE_FILE_H_

#include <cstdint>
#include <string>
#include <utility>

#include "policy/model/error.h"
#include "policy/policy.h"
#include "policy/system_policy.h"
#include "shim/wire/page.h"

namespace latchkey::broker {

// Puts a socket into the table of those in trouble, or changes what ails it.
void SetTrouble(wire::Page& page, uint64_t cookie, wire::Trouble trouble, Reason reason);
// Takes it out again.
void ClearTrouble(wire::Page& page, uint64_t cookie);

class PageFile {
 public:
  // Makes the file at `path` (mode 0600), in place of any that is there, and compiles `policy` into
  // it (compile.h).
  static Result<PageFile> Make(const std::string& path, const policy::Policy& policy,
                               const policy::System* system);
  // Takes over the file of a broker before us, with its troubles; makes it where it is gone.
  static Result<PageFile> Reopen(const std::string& path, const policy::Policy& policy,
                                 const policy::System* system);

  PageFile(PageFile&& other) noexcept
      : path_(std::move(other.path_)), page_(std::exchange(other.page_, nullptr)) {}
  PageFile& operator=(PageFile&&) = delete;
  ~PageFile();

  wire::Page& page() { return *page_; }
  // Opens the file read-only, to be passed on. The caller closes it; -1 on failure.
  int OpenForClient() const;
  // Removes the file; programs that mapped it keep their mapping.
  void Unlink() const;

 private:
  PageFile(std::string path, wire::Page* page) : path_(std::move(path)), page_(page) {}
  static Result<PageFile> Map(const std::string& path, const policy::Policy& policy,
                              const policy::System* system, int flags);

  std::string path_;
  wire::Page* page_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_PAGE_FILE_H_
