// The lines of the journal as they are written: one JSON object each. Written for every connection
// before it is answered, hence put together as text and not as a tree (journal.h reads them).
#ifndef TOOLS_LATCHKEYD_SERVER_JOURNAL_LINE_H_
#define TOOLS_LATCHKEYD_SERVER_JOURNAL_LINE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "shim/wire/messages.h"
#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/voucher.h"

namespace latchkey::broker {

// A session as it is written down.
struct SessionRecord {
  uint64_t id = 0;
  std::string token;  // hex
  uint32_t uid = 0;
  std::string program;
  std::string policy_name;
  std::string policy_text;
  std::string signature;  // the text of the policy's signature file; empty: it has none
  bool has_policy = false;
  bool by_launcher = false;
  bool unlatched = false;  // its shim cannot be loaded
  wire::FenceState fence = wire::FenceState::kUnasked;
  std::string not_fenced;  // kLacking: why
};

// A program's own request for a socket (LATCHKEY_REQUEST) as it is written down.
struct WishRecord {
  uint64_t cookie = 0;  // of the socket
  uint64_t inode = 0;
  uint64_t session = 0;
  uint32_t uid = 0;
  std::string text;

  bool operator==(const WishRecord&) const = default;
};

// Returns the line, with its end, that says that something is there now.
std::string JournalLine(const SessionRecord& session);
std::string JournalLine(const Entry& entry);
std::string JournalLine(const Guard& guard);
std::string JournalLine(const Voucher& voucher);
// Ids up to this one have been given to latches.
std::string JournalLastIdLine(uint64_t id);
std::string JournalLine(const WishRecord& wish);

// Returns the line that says that something is there no more. `kind`: "session", "latch" or
// "wish".
std::string JournalEndLine(std::string_view kind, uint64_t id);
std::string JournalEndLine(const Guard& guard);
std::string JournalEndLine(const SaKey& key);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_JOURNAL_LINE_H_
