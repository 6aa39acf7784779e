// What a broker that comes after a crash must know: sessions, latches, the SPD entries of ours, and
// who was known to be behind the SAs.
//
// One JSON object a line, appended with one write before the thing is done or answered; the file is
// in the run directory, so it does not survive a reboot (RFC 5660: nothing of a latch may). A torn
// last line is a write that did not finish: what it speaks of was not answered yet.
#ifndef TOOLS_LATCHKEYD_SERVER_JOURNAL_H_
#define TOOLS_LATCHKEYD_SERVER_JOURNAL_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "policy/model/error.h"
#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/voucher.h"
#include "tools/latchkeyd/server/journal_line.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

// What a journal says is there now. Entries lack policy and rule: they are found by session and
// name.
struct JournalState {
  std::map<uint64_t, SessionRecord> sessions;
  std::map<uint64_t, Entry> latches;
  std::set<Guard> guards;
  std::map<SaKey, Voucher> vouchers;
  uint64_t last_id = 0;                   // the greatest that a latch ever had
  std::set<uint64_t> suspects;            // of the latches: a later line about them is garbled
  std::map<uint64_t, WishRecord> wishes;  // by the socket's cookie
  std::map<uint64_t, std::string> held;   // the request that a latch was made under, by its id
  int garbled = 0;                        // lines that were left out, other than a torn last one
};

// Reads a journal's text.
JournalState ReadJournal(std::string_view text);

class Journal {
 public:
  // Opens `path` (mode 0600), and gives what it holds in `state`.
  static Result<Journal> Open(const std::string& path, JournalState& state);

  void Add(const SessionRecord& session);
  void EndSession(uint64_t id);
  void Add(const Entry& entry);
  void EndLatch(uint64_t id);
  // Of a latch that ends with this broker: its id is not given again.
  void NoteId(uint64_t id);
  void Add(const Guard& guard);
  void EndGuard(const Guard& guard);
  void Add(const Voucher& voucher);
  void EndVoucher(const SaKey& key);
  void Add(const WishRecord& wish);
  void EndWish(uint64_t cookie);

  // True once the file has grown past 4 MiB, and twice past what the last Compact() left.
  bool IsLong() const { return size_ >= kLong && size_ >= 2 * compacted_; }
  // Writes the file anew with what is there now. False, and the old file stays, when it cannot.
  bool Compact(const JournalState& state);

  // True when a record could not be written since the last call: a broker that comes after us would
  // not know of what it said.
  bool TakeFailure() { return std::exchange(failed_, false); }

 private:
  static constexpr uint64_t kLong = 4 << 20;

  Journal(std::string path, UniqueFd file, uint64_t size)
      : path_(std::move(path)), file_(std::move(file)), size_(size) {}
  void Write(const std::string& line);
  void DropTorn(uint64_t size);

  std::string path_;
  UniqueFd file_;
  uint64_t size_ = 0;
  uint64_t compacted_ = 0;
  bool failed_ = false;  // a record was lost
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_JOURNAL_H_
