// The highest serial seen of each signed application policy: an older one is refused from then on.
// Kept in the state directory, so it outlives a reboot.
#ifndef TOOLS_LATCHKEYD_SERVER_SERIALS_H_
#define TOOLS_LATCHKEYD_SERVER_SERIALS_H_

#include <cstdint>
#include <string>

#include "policy/model/error.h"

namespace latchkey::broker {

class Serials {
 public:
  // `directory`: made when it is first needed. Brokers that share one take turns.
  explicit Serials(std::string directory) : directory_(std::move(directory)) {}

  // Notes that a policy of `application` with `serial` is used. policy-rollback when a higher one
  // was; kernel-refused when that cannot be known, or not be written down: nothing is noted then.
  Result<void> Use(const std::string& application, uint64_t serial) const;

 private:
  std::string directory_;
};

}  // namespace latchkey::broker

#endif  // TOOLS_LATCHKEYD_SERVER_SERIALS_H_
