// Names of peers: what kind each is, and how two of one kind compare.
//
// A kind written in front (fqdn:, email:, dn:, ip:, keyid:) holds; without one the text says it:
// an IP address, a distinguished name (has '='), an e-mail address (has '@'), else a host name.
// Names of different kinds are never equal, so a peer that chose its own name cannot pass one kind
// off as another.
#ifndef POLICY_IDENTITY_H_
#define POLICY_IDENTITY_H_

#include <string>
#include <string_view>

namespace latchkey::policy {

// The longest name: its field on the wire ends in a NUL.
inline constexpr size_t kMaxId = 255;

// Compares `id`, as the key manager verified it, with `pattern` from a policy: host names and
// e-mail addresses without regard to ASCII case, IP addresses by value, everything else octet by
// octet. "*" in a pattern stands for exactly one label, and only as the whole leftmost one of a
// host name (alone: any host name of one label).
bool IdMatches(std::string_view pattern, std::string_view id);

// Returns what is wrong with a name ("expected …"), or nothing. `wildcard`: "*" may stand where
// IdMatches takes it; anywhere else in a host name or e-mail address it is an error.
std::string IdFault(std::string_view id, bool wildcard);

}  // namespace latchkey::policy

#endif  // POLICY_IDENTITY_H_
