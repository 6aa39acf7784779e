// What failed: the step, the value it met and the reason word. The first cause wins: code that
// passes an Error on never replaces it.
#ifndef POLICY_MODEL_ERROR_H_
#define POLICY_MODEL_ERROR_H_

#include <expected>
#include <string>
#include <utility>

#include "shim/wire/reason.h"

namespace latchkey {

using wire::Reason;

struct Error {
  std::string step;   // what was being done: "open policy", "setsockopt IP_XFRM_POLICY"
  std::string value;  // what was met, with what was expected where that helps
  Reason reason = Reason::kKernelRefused;

  // Returns "step: value (reason-word)".
  std::string ToString() const {
    std::string text = step;
    if (!value.empty()) text += ": " + value;
    return text + " (" + wire::ReasonWord(reason) + ")";
  }
};

template <typename T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> Fail(Reason reason, std::string step, std::string value = {}) {
  return std::unexpected(Error{std::move(step), std::move(value), reason});
}

}  // namespace latchkey

#endif  // POLICY_MODEL_ERROR_H_
