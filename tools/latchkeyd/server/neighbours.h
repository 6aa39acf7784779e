// Brokers beside each other: one owns a directory, and those of one namespace, which share the
// standing guards, start and stop one at a time. Known are those whose directories lie in
// /run/latchkey; a broker with another --run-dir is not seen.
#ifndef TOOLS_LATCHKEYD_SERVER_NEIGHBOURS_H_
#define TOOLS_LATCHKEYD_SERVER_NEIGHBOURS_H_

#include <chrono>
#include <string>

#include "policy/model/error.h"
#include "tools/unique_fd.h"

namespace latchkey::broker {

inline constexpr char kBrokersDirectory[] = "/run/latchkey";

// Locks `directory`/lock so that one broker owns the directory; held as long as the descriptor
// lives.
Result<UniqueFd> LockDirectory(const std::string& directory);

// True when another broker runs: one whose lock, in `base` or in one of `base`/private, is held.
bool OtherBrokers(const std::string& own_directory, const std::string& base = kBrokersDirectory);

// The turn to start or to stop. Two that stop at once would each see the other, and both leave the
// standing guards; one that starts could find guards in place that another is about to take away.
class Turn {
 public:
  // Opens `base`/turn, which root alone can. Without it (no such directory: nobody else is seen
  // there either) every turn is granted.
  explicit Turn(const std::string& base = kBrokersDirectory);

  // Waits until nobody else has the turn; false when somebody kept it for `patience`, and it goes
  // on without. A broker that stops keeps it until its lock is gone: the descriptor of
  // LockDirectory has to be closed before this is.
  bool Take(std::chrono::milliseconds patience = std::chrono::seconds(5));
  // Ends it.
  void Pass();

 private:
  UniqueFd file_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_NEIGHBOURS_H_
