// The Latch Database (RFC 5660, section 2.3): every latch by id and by its socket's cookie, and the
// one function that changes a latch's state. Latches of the peers of an unconnected UDP socket
// (with a `listener`) are found by id alone, and do not count against a user's.
#ifndef TOOLS_LATCHKEYD_LATCH_DATABASE_H_
#define TOOLS_LATCHKEYD_LATCH_DATABASE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <unordered_map>

#include "shim/wire/reason.h"
#include "tools/latchkeyd/latch/entry.h"
#include "tools/latchkeyd/latch/observer.h"

namespace latchkey::broker {

class Database {
 public:
  explicit Database(Observer& observer) : observer_(observer) {}

  // Puts a new latch in, in its birth state (LISTENER, LARVAL or ESTABLISHED), gives it the next id
  // unless it has one, and tells the observer. Null when a latch for that cookie is there and not
  // CLOSED (RFC 5660 item: a latch that exists is not created again) or the birth state is none.
  Entry* Insert(Entry entry);

  // Puts a latch of a broker before us back in the state it was in, BROKEN included.
  Entry* Restore(Entry entry);

  // Changes the state: checks the move against the table, records the reason, counts it and tells
  // the observer. False, and nothing changed, for a move that the table does not have.
  bool SetState(Entry& entry, State to, wire::Reason reason);

  // Moves the latch to CLOSED and takes it out.
  void Remove(uint64_t id, wire::Reason reason);

  Entry* Find(uint64_t id);
  const Entry* Find(uint64_t id) const;
  Entry* FindByCookie(uint64_t cookie);
  const Entry* FindByCookie(uint64_t cookie) const;
  // The latches of flows with that address, and the listeners.
  std::set<uint64_t> WithRemote(const Address& remote) const;
  const std::set<uint64_t>& listeners() const { return listeners_; }
  const Entry* After(uint64_t id) const;  // the first with a greater id
  size_t CountOfUid(uint32_t uid) const;

  std::map<uint64_t, Entry>& entries() { return entries_; }
  const std::map<uint64_t, Entry>& entries() const { return entries_; }
  uint64_t Count(wire::Reason reason) const;

  // The greatest id that a latch ever had, here or before: it is not given again.
  uint64_t last_id() const { return next_id_ - 1; }
  void SkipIds(uint64_t last) { next_id_ = std::max(next_id_, last + 1); }

 private:
  Observer& observer_;
  std::map<uint64_t, Entry> entries_;
  std::unordered_map<uint64_t, uint64_t> by_cookie_;
  std::unordered_map<uint32_t, size_t> by_uid_;
  std::map<Address, std::set<uint64_t>> by_remote_;
  std::set<uint64_t> listeners_;
  std::array<uint64_t, wire::kReasonCount> counters_{};
  uint64_t next_id_ = 1;
};

// True when a latch may go from one state to the other (RFC 5660, figure 1; a LARVAL one
// that gets no SA is BROKEN until its owner has heard of it).
bool MayMove(State from, State to);

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_LATCH_DATABASE_H_
