// Programs' own requests for their sockets (LATCHKEY_REQUEST), by the sockets' cookies: kept as
// long as the socket is, since it may be connected again.
#ifndef TOOLS_LATCHKEYD_SERVER_WISHES_H_
#define TOOLS_LATCHKEYD_SERVER_WISHES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_set>
#include <vector>

#include "policy/policy.h"
#include "tools/latchkeyd/server/journal_line.h"

namespace latchkey::broker {

class WishTable {
 public:
  // Puts one in; false where the socket has one already.
  bool Put(WishRecord record, std::shared_ptr<const policy::Policy> policy);
  // The policy of a socket's request; null: it has none.
  std::shared_ptr<const policy::Policy> Find(uint64_t cookie) const;

  // Forgets those whose sockets no process holds, by their inodes, now and when this was called
  // before: one that is on its way from a process to another is held by none for a moment. Returns
  // their cookies.
  std::vector<uint64_t> Prune(const std::unordered_set<uint64_t>& held);

  size_t CountOf(uint32_t uid) const;
  bool empty() const { return wishes_.empty(); }
  std::map<uint64_t, WishRecord> Records() const;

 private:
  struct Wish {
    WishRecord record;
    std::shared_ptr<const policy::Policy> policy;
    bool missed = false;
  };
  std::map<uint64_t, Wish> wishes_;
  std::map<uint32_t, size_t> by_uid_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_WISHES_H_
