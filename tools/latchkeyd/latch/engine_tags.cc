// Tags: by what an unconnected UDP socket's filter tells under which SA a datagram came. Every
// incoming SA that may serve such a socket is given one of its own, in the bits of packet marks
// that are ours. They stand in the SAs themselves: a broker that comes after us finds them there.

#include <algorithm>
#include <utility>

#include "tools/latchkeyd/latch/engine.h"

namespace latchkey::broker {

// An SA is in the index by its tag as long as it is known.
void Engine::NoteTag(const Sa* before, const Sa* after) {
  const auto tag_of = [this](const Sa& sa) {
    return sa.set_mark & sa.set_mask & options_.tag_mask;
  };
  if (before != nullptr) {
    const auto it = tags_.find(tag_of(*before));
    if (it != tags_.end() && it->second.erase(before->key) > 0 && it->second.empty()) {
      tags_.erase(it);
    }
  }
  if (after != nullptr && tag_of(*after) != 0) tags_[tag_of(*after)].insert(after->key);
}

// True when the tag does not tell whose SA it was; or when no one entry can be its proof, for
// between the same ends it is borne by SAs of several reqids.
bool Engine::IsShared(uint32_t tag, const SaKey& key) const {
  const auto it = tags_.find(tag);
  if (it == tags_.end()) return false;
  const KnownSa* own = sas_.Find(key);
  return std::ranges::any_of(it->second, [&](const SaKey& other) {
    if (other == key) return false;
    const KnownSa* known = sas_.Find(other);
    if (known == nullptr || own == nullptr || !known->vouched || !own->vouched) return true;
    const Sa& a = known->sa;
    const Sa& b = own->sa;
    const bool same_ends = a.source == b.source && a.key.destination == b.key.destination;
    return *known->vouched != *own->vouched || a.protection != b.protection ||
           (same_ends && a.reqid != b.reqid);
  });
}

// The next after the one given last: one whose SA has just gone is not given again at once. 0: all
// are taken.
uint32_t Engine::FreshTag() {
  const uint32_t mask = options_.tag_mask;
  for (size_t tries = 0; tries < tags_.size() + 2; ++tries) {
    last_tag_ = ((last_tag_ | ~mask) + 1) & mask;  // counts in the bits of the mask alone
    if (last_tag_ != 0 && !tags_.contains(last_tag_)) return last_tag_;
  }
  return 0;
}

// Gives an incoming SA a tag that no other has; 0: it has none of ours now.
uint32_t Engine::Retag(const KnownSa& known) {
  const uint32_t mask = options_.tag_mask;
  const uint32_t fresh = FreshTag();
  if (fresh == 0) {
    observer_.OnWarning("no datagrams under another SA: there are no tags left");
    return 0;
  }
  Sa sa = known.sa;
  if (Result<void> done = kernel_.TagSa(sa, fresh, mask); !done) {
    if (untagged_.insert(sa.key).second) {
      observer_.OnWarning("no datagrams under an SA: " + done.error().ToString());
    }
    return 0;
  }
  untagged_.erase(sa.key);
  tagged_.insert(sa.key);
  sa.set_mark = (sa.set_mark & ~mask) | fresh;
  sa.set_mask |= mask;
  PutSa(sa, /*inbound=*/true, Identified(known.who));
  return fresh;
}

// Returns the tag of an incoming SA, having given it one where it had none. What its key manager
// says of those bits stands, and those that we gave the same make way; 0 where that does not tell
// it from others, or none can be given.
uint32_t Engine::TagOf(const SaKey& key) {
  const KnownSa* known = sas_.Find(key);
  const uint32_t mask = options_.tag_mask;
  if (known == nullptr || mask == 0) return 0;
  const uint32_t said = known->sa.set_mask & mask;
  const uint32_t tag = known->sa.set_mark & said;
  if (said == mask && tag != 0 && !IsShared(tag, key)) return tag;
  if (said == 0 || tagged_.contains(key)) return Retag(*known);
  if (said != mask || tag == 0) return 0;
  for (const SaKey& other : std::set(tags_.at(tag))) {
    if (tagged_.contains(other)) Retag(*sas_.Find(other));
  }
  return IsShared(tag, key) ? 0 : tag;
}

// Adds the peers of all SAs that bear, or did bear, a tag with one of these: what it tells of them
// is another thing now.
void Engine::AddTagSharers(const std::vector<Sa>& sas, std::set<Address>& peers) const {
  for (const Sa& sa : sas) {
    const auto it = tags_.find(sa.set_mark & sa.set_mask & options_.tag_mask);
    if (it == tags_.end()) continue;
    for (const SaKey& key : it->second) peers.insert(sas_.Find(key)->remote());
  }
}

}  // namespace latchkey::broker
