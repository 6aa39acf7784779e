#include "tools/latchkeyd/server/wishes.h"

#include <utility>

namespace latchkey::broker {

bool WishTable::Put(WishRecord record, std::shared_ptr<const policy::Policy> policy) {
  const uint64_t cookie = record.cookie;
  const uint32_t uid = record.uid;
  const bool added = wishes_.try_emplace(cookie, std::move(record), std::move(policy)).second;
  if (added) ++by_uid_[uid];
  return added;
}

std::shared_ptr<const policy::Policy> WishTable::Find(uint64_t cookie) const {
  const auto it = wishes_.find(cookie);
  return it == wishes_.end() ? nullptr : it->second.policy;
}

std::vector<uint64_t> WishTable::Prune(const std::unordered_set<uint64_t>& held) {
  std::vector<uint64_t> gone;
  for (auto it = wishes_.begin(); it != wishes_.end();) {
    Wish& wish = it->second;
    const bool missing = !held.contains(wish.record.inode);
    if (!missing || !std::exchange(wish.missed, true)) {
      wish.missed = missing;
      ++it;
      continue;
    }
    gone.push_back(it->first);
    if (--by_uid_[wish.record.uid] == 0) by_uid_.erase(wish.record.uid);
    it = wishes_.erase(it);
  }
  return gone;
}

size_t WishTable::CountOf(uint32_t uid) const {
  const auto it = by_uid_.find(uid);
  return it == by_uid_.end() ? 0 : it->second;
}

std::map<uint64_t, WishRecord> WishTable::Records() const {
  std::map<uint64_t, WishRecord> records;
  for (const auto& [cookie, wish] : wishes_) records[cookie] = wish.record;
  return records;
}

}  // namespace latchkey::broker
