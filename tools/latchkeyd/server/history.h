// The last refusals and breaks, for `latchkey why`.
#ifndef TOOLS_LATCHKEYD_SERVER_HISTORY_H_
#define TOOLS_LATCHKEYD_SERVER_HISTORY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

#include "tools/latchkeyd/latch/records.h"

namespace latchkey::broker {

class History {
 public:
  static constexpr size_t kKept = 1024;

  // Gives the incident its number and keeps it; the oldest goes when there are too many.
  void Add(Incident incident) {
    incident.id = ++last_;
    incidents_.push_back(std::move(incident));
    if (incidents_.size() > kKept) incidents_.pop_front();
  }

  // Returns the newest whose number is below `id` (0: the newest of all) and that `uid` may see,
  // his own or, for root, any; null when there is none.
  const Incident* Before(uint64_t id, uint32_t uid) const {
    const auto found =
        std::find_if(incidents_.rbegin(), incidents_.rend(), [id, uid](const Incident& incident) {
          return (id == 0 || incident.id < id) && (uid == 0 || incident.uid == uid);
        });
    return found == incidents_.rend() ? nullptr : &*found;
  }

 private:
  std::deque<Incident> incidents_;
  uint64_t last_ = 0;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_HISTORY_H_
