// A program's own request for one socket (LATCHKEY_REQUEST, latchkey(7)): one [[rule]] in the
// language of policies, with the protections and peers that it names.
#ifndef POLICY_REQUEST_H_
#define POLICY_REQUEST_H_

#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "policy/parse.h"
#include "policy/policy.h"

namespace latchkey::policy {

inline constexpr size_t kMaxRequest = 2047;  // octets

// Parses `text` into a policy of one rule for every flow of the socket, held to `floor`, the
// policy of the program's session, whose application's name it has. The rule says how, not for
// what: remote, local, their ports and protocol are errors, as is all that a policy has beside
// rules. A rule without a name is "request".
std::expected<Policy, std::vector<ParseError>> ParseRequest(std::string_view text,
                                                            std::shared_ptr<const Policy> floor);

// Parses a request that was taken before, under another floor. One that does not parse, which none
// is, discards everything.
std::shared_ptr<const Policy> HeldTo(const std::string& request,
                                     std::shared_ptr<const Policy> floor);

// True when both say the same, and are held to the same. A request is parsed anew for each who uses
// its socket, and a session's policy for each broker.
bool SameRules(const std::shared_ptr<const Policy>& one,
               const std::shared_ptr<const Policy>& other);

}  // namespace latchkey::policy

#endif  // POLICY_REQUEST_H_
