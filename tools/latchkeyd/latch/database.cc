#include "tools/latchkeyd/latch/database.h"

#include <utility>

namespace latchkey::broker {

bool MayMove(State from, State to) {
  switch (from) {
    case State::kLarval:
      return to == State::kEstablished || to == State::kBroken || to == State::kClosed;
    case State::kListener:
      return to == State::kClosed;
    case State::kEstablished:
      return to == State::kBroken || to == State::kClosed;
    case State::kBroken:
      return to == State::kEstablished || to == State::kClosed;
    case State::kClosed:
      return false;
  }
  return false;
}

Entry* Database::Insert(Entry entry) {
  const State birth = entry.latch.state;
  if (birth == State::kClosed || birth == State::kBroken) return nullptr;
  return Restore(std::move(entry));
}

Entry* Database::Restore(Entry entry) {
  const State birth = entry.latch.state;
  if (birth == State::kClosed) return nullptr;
  const bool peer = entry.latch.listener != 0;  // its socket is its listener's
  if (!peer && (entry.hint.cookie == 0 || FindByCookie(entry.hint.cookie) != nullptr)) {
    return nullptr;
  }
  if (entry.latch.id == 0) entry.latch.id = next_id_;
  if (entry.latch.id >= next_id_) next_id_ = entry.latch.id + 1;
  const uint64_t id = entry.latch.id;
  auto [it, fresh] = entries_.emplace(id, std::move(entry));
  if (!fresh) return nullptr;
  if (!peer) {
    by_cookie_[it->second.hint.cookie] = id;
    ++by_uid_[it->second.latch.uid];
    by_remote_[it->second.latch.flow.remote.address].insert(id);
  }
  if (birth == State::kListener) listeners_.insert(id);
  observer_.OnState(it->second, birth);
  return &it->second;
}

bool Database::SetState(Entry& entry, State to, wire::Reason reason) {
  const State from = entry.latch.state;
  if (!MayMove(from, to)) return false;
  entry.latch.state = to;
  entry.latch.reason = reason;
  ++counters_[static_cast<uint16_t>(reason)];
  observer_.OnState(entry, from);
  return true;
}

void Database::Remove(uint64_t id, wire::Reason reason) {
  auto it = entries_.find(id);
  if (it == entries_.end()) return;
  Entry& entry = it->second;
  SetState(entry, State::kClosed, reason);
  if (entry.latch.listener != 0) {
    entries_.erase(it);
    return;
  }
  by_cookie_.erase(entry.hint.cookie);
  auto uid = by_uid_.find(entry.latch.uid);
  if (uid != by_uid_.end() && --uid->second == 0) by_uid_.erase(uid);
  listeners_.erase(id);
  auto remote = by_remote_.find(entry.latch.flow.remote.address);
  if (remote != by_remote_.end() && remote->second.erase(id) > 0 && remote->second.empty()) {
    by_remote_.erase(remote);
  }
  entries_.erase(it);
}

std::set<uint64_t> Database::WithRemote(const Address& remote) const {
  const auto it = by_remote_.find(remote);
  return it == by_remote_.end() ? std::set<uint64_t>{} : it->second;
}

Entry* Database::Find(uint64_t id) {
  auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second;
}

const Entry* Database::Find(uint64_t id) const {
  auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second;
}

Entry* Database::FindByCookie(uint64_t cookie) {
  auto it = by_cookie_.find(cookie);
  return it == by_cookie_.end() ? nullptr : Find(it->second);
}

const Entry* Database::FindByCookie(uint64_t cookie) const {
  auto it = by_cookie_.find(cookie);
  return it == by_cookie_.end() ? nullptr : Find(it->second);
}

const Entry* Database::After(uint64_t id) const {
  auto it = entries_.upper_bound(id);
  return it == entries_.end() ? nullptr : &it->second;
}

size_t Database::CountOfUid(uint32_t uid) const {
  auto it = by_uid_.find(uid);
  return it == by_uid_.end() ? 0 : it->second;
}

uint64_t Database::Count(wire::Reason reason) const {
  return counters_.at(static_cast<uint16_t>(reason));
}

}  // namespace latchkey::broker
