// `latchkey break` and `latchkey resume`: what the administrator, or its owner, may do to a latch.

#include <string>

#include "tools/latchkey/find_latch.h"
#include "tools/latchkey/verbs.h"

namespace latchkey::tool {
namespace {

std::string Named(const Latch& latch) { return "latch " + std::to_string(latch.id); }

std::string InParentheses(wire::Reason reason) {
  return std::string(" (") + wire::ReasonWord(reason) + ")";
}

// Why the broker does not break it, by what it said of it before.
std::string WhyNotBroken(const Latch& latch) {
  switch (latch.state) {
    case State::kListener:
      return Named(latch) + " is a listener: it ends when its program closes it";
    case State::kBroken:
      return Named(latch) + " is broken already" + InParentheses(latch.reason);
    default:
      return Named(latch) + " is gone, or cannot be broken now";
  }
}

std::string WhyNotResumed(const Latch& latch) {
  if (latch.state != State::kBroken) return Named(latch) + " is not broken";
  if (!latch.suspends) {
    return Named(latch) +
           " cannot be resumed: its rule says on_break = \"reset\", and its "
           "connection is gone";
  }
  if (latch.reason != wire::Reason::kAdmin) {
    return Named(latch) + " was not broken by hand" + InParentheses(latch.reason) +
           ": it goes on by itself once what broke it is gone";
  }
  return Named(latch) + " is gone, or cannot be resumed now";
}

// The verb's end, from what the broker answered.
int Finish(const FoundLatch& found, const std::expected<wire::Reason, std::string>& answer,
           std::string (*why_not)(const Latch&)) {
  if (!answer) return Report({kExitNoBroker, found.broker.path + ": " + answer.error()});
  if (*answer == wire::Reason::kNone) return kExitYes;
  if (*answer == wire::Reason::kBadRequest) return Report({kExitNo, why_not(found.latch)});
  return Report({kExitNo, Named(found.latch) + ": refused" + InParentheses(*answer)});
}

}  // namespace

int Break(const QueryOptions& options) {
  auto found = FindLatch(options.socket, options.id);
  if (!found) return Report(found.error());
  return Finish(*found, found->broker.client.Break(options.id), WhyNotBroken);
}

int Resume(const QueryOptions& options) {
  auto found = FindLatch(options.socket, options.id);
  if (!found) return Report(found.error());
  return Finish(*found, found->broker.client.Resume(options.id), WhyNotResumed);
}

}  // namespace latchkey::tool
